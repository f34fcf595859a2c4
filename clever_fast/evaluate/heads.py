"""Linear classifiers of many parts and learning rates, trained side by side on the same features."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from torch import Tensor

from clever_fast import distributed, schedules
from clever_fast.data import send
from clever_fast.errors import UserError
from clever_fast.evaluate import metrics
from clever_fast.evaluate.features import Labelled
from clever_fast.evaluate.protocol import Protocol, Report
from clever_fast.fields import ABOVE_ZERO, COUNT, SEED, validate
from clever_fast.pipelines.parameters import Sampler
from clever_fast.progress import images_bar

Share = tuple[Tensor, Tensor, int]  # a rank's features (n, D) and labels (n,) of a step, and the labels of all ranks

MOMENTUM = 0.9
STD = 0.01  # of the initial weights


FITTING_BOUNDS = {
    **dict.fromkeys(("epochs", "batch_size", "repetitions"), COUNT),
    "lrs": ABOVE_ZERO,
    "seed": SEED,
}


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How linear classifiers are trained and tested; SGD with momentum 0.9 and no weight decay.

    What is None is the protocol's, or what the released code does; `under` puts it in.

    Args:
        epochs: passes over the training images; 100, or 200 by SimSiam's protocol, by default.
        batch_size: images of one step over all processes together.
        lrs: learning rates for a batch of 256, each with a classifier of its own for every part; the rate used is
            lr * batch_size / 256. By default `linear` takes the released one, 0.001 or by SimSiam's protocol 30, and
            the others six.
        report: of the unperturbed test images, the accuracy of the best epoch, which is chosen on these very images, or
            of the last; best_epoch, as released, in `linear`, and last in the others by default.
        repetitions: of every random perturbation of the test images, for the spread.
        seed: of the classifiers' weights, the crops, the order and the perturbations.
    """

    epochs: int | None = None
    batch_size: int = 256
    lrs: tuple[float, ...] | None = None
    report: Report | None = None
    repetitions: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        validate(self, "", FITTING_BOUNDS)
        if self.lrs is not None and not self.lrs:
            raise UserError("no learning rate is given: leave out --lrs, or give one or more above 0")

    def under(self, protocol: Protocol, *, published: bool) -> "Fitting":
        """These settings with the protocol's where there is None.

        published: of `linear`, whose protocol is published, or of one that is not.
        """
        return replace(
            self,
            epochs=self.epochs or protocol.linear_epochs,
            lrs=self.lrs or ((protocol.linear_lr,) if published else protocol.rates),
            report=self.report or ("best_epoch" if published else "last"),
        )


class Heads:
    """For every part of a feature vector one linear classifier for each learning rate, all of the same initial weights.

    The classifiers of a part are one matrix product: cross-entropy's gradient is softmax - one-hot, so no graph is
    recorded, and a momentum buffer without the learning rate in it (torch's SGD) lets every classifier have its own.

    Args:
        parts: slices of a feature vector of `width` channels.
        fitting: its L learning rates, scaled by its batch size, are those at the start of the schedule.
    """

    def __init__(self, parts: dict[str, slice], width: int, classes: int, fitting: Fitting, device: torch.device):
        self.parts, self.classes = parts, classes
        lrs = torch.tensor(fitting.lrs, device=device) * fitting.batch_size / 256
        self.lrs = lrs.repeat_interleave(classes)[:, None]  # of each row of a matrix
        generator = torch.Generator().manual_seed(fitting.seed)
        self.weights, self.biases, self.momenta = {}, {}, {}
        for name, part in parts.items():
            channels = len(range(*part.indices(width)))
            weight = STD * torch.randn(classes, channels, generator=generator)
            self.weights[name] = weight.repeat(len(lrs), 1).to(device)  # (L*C, d)
            self.biases[name] = torch.zeros(len(lrs) * classes, 1, device=device)
            self.momenta[name] = torch.zeros_like(self.weights[name]), torch.zeros_like(self.biases[name])

    def logits(self, features: Tensor, part: str) -> Tensor:
        """Features (n, D) -> (n, L, C)."""
        weight, bias = self.weights[part], self.biases[part]
        return torch.addmm(bias.T, features[:, self.parts[part]], weight.T).unflatten(1, (-1, self.classes))

    def predict(self, features: Tensor, part: str, chunk: int = 8192) -> Tensor:
        """Features (n, D) -> the classes (L, n) that the part's classifiers name."""
        return torch.cat([self.logits(rows, part).argmax(2) for rows in features.split(chunk)]).T

    @torch.no_grad()
    def step(self, features: Tensor, labels: Tensor, total: int, factor: float = 1.0) -> None:
        """One step of SGD for every classifier; features (n, D), labels (n,): this rank's share of the batch.

        total: of all ranks, whose shares may differ. factor: of all learning rates, the schedule's.
        """
        scale = distributed.world_size() / total  # of which the mean over the ranks is taken
        for name, part in self.parts.items():
            error = self.logits(features, name).softmax(2)
            error.scatter_add_(2, labels[:, None, None].expand(-1, error.shape[1], 1), -torch.ones_like(error[..., :1]))
            error = error.flatten(1) * scale
            gradients = error.T @ features[:, part], error.sum(0)[:, None]
            values = self.weights[name], self.biases[name]
            for value, momentum, gradient in zip(values, self.momenta[name], gradients, strict=True):
                momentum.mul_(MOMENTUM).add_(distributed.mean(gradient))
                value.sub_(factor * self.lrs * momentum)


class BestEpoch:
    """The classifiers as they were after the epoch in which each did best on some features x (n, D), labels y (n,)."""

    def __init__(self, heads: Heads, test: Labelled):
        self.test, self.heads = test, copy.copy(heads)
        self.heads.weights = {part: weight.clone() for part, weight in heads.weights.items()}
        self.heads.biases = {part: bias.clone() for part, bias in heads.biases.items()}
        rates = len(heads.lrs) // heads.classes
        self.accuracy = {part: torch.full((rates,), -1.0, dtype=torch.float64) for part in heads.parts}
        self.epoch = {part: torch.zeros(rates, dtype=torch.int64) for part in heads.parts}  # counted from 1

    def look(self, heads: Heads, epoch: int) -> None:
        """Test the classifiers after `epoch` epochs, and keep those that are better than ever before."""
        x, y = self.test
        for part in heads.parts:
            accuracy = metrics.accuracy(heads.predict(x, part), y).cpu()
            better = accuracy > self.accuracy[part]
            self.accuracy[part] = accuracy.where(better, self.accuracy[part])
            self.epoch[part] = self.epoch[part].masked_fill(better, epoch)
            rows = better.to(x.device).repeat_interleave(heads.classes)[:, None]
            for kept, now in ((self.heads.weights, heads.weights), (self.heads.biases, heads.biases)):
                kept[part] = now[part].where(rows, kept[part])


def fit(
    heads: Heads, batches: Iterable[Share], steps_per_epoch: int, fitting: Fitting, best: BestEpoch | None = None
) -> None:
    """Train on this rank's shares of all epochs; the learning rates follow half a cosine, epoch by epoch.

    best: looks at the classifiers after every epoch.
    """
    steps = fitting.epochs * steps_per_epoch
    with images_bar("linear classifiers", steps * fitting.batch_size, shown=distributed.is_main()) as advance:
        for step, (features, labels, total) in zip(range(steps), batches, strict=False):
            epoch, last = divmod(step + 1, steps_per_epoch)
            factor = schedules.cosine(step // steps_per_epoch, steps=fitting.epochs, start=1.0, end=0.0)
            heads.step(features, labels, total, factor)
            if best and not last:
                best.look(heads, epoch)
            advance(fitting.batch_size)


class CachedBatches:
    """Batches of features that lie on the device, in a random order that depends on seed and epoch alone.

    Iterating yields this rank's features and labels of a step, and how many all ranks have; an epoch holds every row.
    """

    def __init__(self, features: Tensor, labels: Tensor, *, batch_size: int, seed: int):
        self.features, self.labels = features, labels
        sizes = np.empty((len(features), 0))
        shares = {"rank": distributed.rank(), "world_size": distributed.world_size()}
        self.sampler = Sampler(sizes, (), seed=seed, batch_size=batch_size, partial=True, **shares)

    @property
    def steps_per_epoch(self) -> int:
        return self.sampler.steps_per_epoch

    def __iter__(self) -> Iterator[Share]:
        for step in count():
            own, total = self.sampler.counts(step)
            rows = send(torch.from_numpy(self.sampler.indices(step)[:own]), self.features.device)
            yield self.features[rows], self.labels[rows], total
