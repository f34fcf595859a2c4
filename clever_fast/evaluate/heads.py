"""Linear classifiers of many parts and learning rates, trained side by side on the same features."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from clever_fast import distributed, schedules
from clever_fast.bar import images_bar
from clever_fast.errors import UserError
from clever_fast.evaluate.features import Labelled
from clever_fast.pipelines.parameters import Sampler

MOMENTUM = 0.9
STD = 0.01  # of the initial weights


class Heads:
    """For every part of a feature vector one linear classifier for each learning rate, all of the same initial weights.

    The classifiers of a part are one matrix product: cross-entropy's gradient is softmax - one-hot, so no graph is
    recorded, and a momentum buffer without the learning rate in it (torch's SGD) lets every classifier have its own.

    Args:
        parts: slices of a feature vector of `width` channels.
        lrs: L learning rates for the whole batch, at the start of the cosine.
    """

    def __init__(
        self,
        parts: dict[str, slice],
        width: int,
        classes: int,
        lrs: Sequence[float],
        *,
        device: torch.device,
        seed: int = 0,
    ):
        if not lrs or min(lrs) <= 0:
            raise UserError(f"learning rates of {list(lrs)}: give one or more above 0")
        self.parts, self.classes = parts, classes
        self.lrs = torch.tensor(lrs, device=device).repeat_interleave(classes)[:, None]  # of each row of a matrix
        generator = torch.Generator().manual_seed(seed)
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
    def step(self, features: Tensor, labels: Tensor, factor: float = 1.0) -> None:
        """One step of SGD for every classifier; features (n, D), labels (n,): this rank's share of the batch.

        factor: of all learning rates, the schedule's.
        """
        for name, part in self.parts.items():
            error = self.logits(features, name).softmax(2)
            error.scatter_add_(2, labels[:, None, None].expand(-1, error.shape[1], 1), -torch.ones_like(error[..., :1]))
            error = error.flatten(1) / len(features)
            gradients = error.T @ features[:, part], error.sum(0)[:, None]
            values = self.weights[name], self.biases[name]
            for value, momentum, gradient in zip(values, self.momenta[name], gradients, strict=True):
                momentum.mul_(MOMENTUM).add_(distributed.mean(gradient))
                value.sub_(factor * self.lrs * momentum)


def fit(heads: Heads, batches: Iterable[Labelled], steps_per_epoch: int, *, epochs: int, batch_size: int) -> None:
    """Train on this rank's shares of `epochs` passes; the learning rates follow half a cosine, epoch by epoch."""
    if epochs < 1:
        raise UserError(f"{epochs} epochs teach nothing; give at least 1")
    total = epochs * steps_per_epoch
    with images_bar("linear classifiers", total * batch_size, shown=distributed.is_main()) as advance:
        for step, (features, labels) in zip(range(total), batches, strict=False):
            factor = schedules.cosine(step // steps_per_epoch, steps=epochs, start=1.0, end=0.0)
            heads.step(features, labels, factor)
            advance(batch_size)


class CachedBatches:
    """Batches of features that lie on the device, in a random order that depends on seed and epoch alone."""

    def __init__(self, features: Tensor, labels: Tensor, *, batch_size: int, seed: int):
        self.features, self.labels = features, labels
        sizes = np.empty((len(features), 0))
        shares = {"rank": distributed.rank(), "world_size": distributed.world_size()}
        self.sampler = Sampler(sizes, (), seed=seed, batch_size=batch_size, **shares)

    @property
    def steps_per_epoch(self) -> int:
        return self.sampler.steps_per_epoch

    def __iter__(self) -> Iterator[Labelled]:
        step = 0
        while True:
            rows = torch.from_numpy(self.sampler.indices(step)).to(self.features.device)
            yield self.features[rows], self.labels[rows]
            step += 1
