"""Linear classification of frozen features, and of perturbed test images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from clever_fast.accelerator import Accelerator
from clever_fast.data import LabelledBatches
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.evaluate import labelled, metrics
from clever_fast.evaluate.features import Labelled, features, for_linear, repeated_features
from clever_fast.evaluate.heads import BestEpoch, CachedBatches, Fitting, Heads, Share, fit
from clever_fast.evaluate.protocol import PROTOCOLS
from clever_fast.evaluate.results import Row
from clever_fast.ops import selection
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.perturbations import ORIG, PUBLISHED, Perturbation


def linear(
    encoder: TrainedEncoder,
    bank: Manifest,
    query: Manifest,
    accelerator: Accelerator,
    fitting: Fitting,
    *,
    perturbations: Sequence[Perturbation] = PUBLISHED,
    augment: bool = True,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
) -> list[Row]:
    """Train classifiers of every part and learning rate in one pass over the data, then test them on perturbed images.

    The settings that are None are those of the encoder's protocol.

    augment: a random crop and flip of every training image, so one forward pass of the data an epoch; without, the
    images are encoded once and the features stay on the device. interpolation: of the crops.
    """
    labelled.check(bank, query)
    protocol = PROTOCOLS[encoder.protocol]
    fitting, encoder = fitting.under(protocol, published=True), for_linear(encoder)
    encode = accelerator.place(encoder.network).eval()
    original = features(encode, query, encoder.size, accelerator, perturbation=protocol.original)
    if augment:
        fitted = _fit_augmented(encode, encoder, bank, accelerator, fitting, original, interpolation)
    else:
        train = features(encode, bank, encoder.size, accelerator, perturbation=protocol.original)
        fitted = fit_cached(train, encoder.parts, len(bank.classes), fitting, original)
    rows = fitted.scores([original], {"test": protocol.original.name})
    for perturbation in without_original(perturbations):
        tests = repeated_features(
            encode, query, encoder.size, accelerator, perturbation, repetitions=fitting.repetitions, seed=fitting.seed
        )
        rows += fitted.scores(tests, {"test": perturbation.name}, best=protocol.perturbed_by_best)
    return choose(rows)


def without_original(perturbations: Sequence[Perturbation]) -> list[Perturbation]:
    """The perturbed images; the others always come first, as learning rates are chosen on them."""
    return [perturbation for perturbation in perturbations if perturbation.name != ORIG.name]


@dataclass(frozen=True)
class Fitted:
    """Classifiers after the last epoch, and each after its best one where these are reported."""

    last: Heads
    best: BestEpoch | None
    fitting: Fitting

    def scores(self, tests: list[Labelled], known: Row, *, best: bool = True) -> list[Row]:
        """Accuracy of every part and learning rate: mean and standard deviation over the repetitions of a test.

        best: of the best epoch's classifiers where these are reported, otherwise of the last's.
        """
        rows, chosen = [], self.best if best else None
        heads = chosen.heads if chosen else self.last
        for part in heads.parts:
            of_each = torch.stack([metrics.accuracy(heads.predict(x, part), y) for x, y in tests])
            mean, deviation = (value.tolist() for value in metrics.spread(of_each))
            epochs = chosen.epoch[part].tolist() if chosen else [self.fitting.epochs] * len(mean)
            for lr, epoch, accuracy, spread in zip(self.fitting.lrs, epochs, mean, deviation, strict=True):
                rows.append({"part": part, **known, "lr": lr, "epoch": epoch, "accuracy": accuracy, "spread": spread})
        return rows


def fit_cached(train: Labelled, parts: dict[str, slice], classes: int, fitting: Fitting, test: Labelled) -> Fitted:
    """Classifiers of features that are there already; the best epoch is that on `test`."""
    batches = CachedBatches(*train, batch_size=fitting.batch_size, seed=fitting.seed)
    heads = Heads(parts, train[0].shape[1], classes, fitting, train[0].device)
    return _fit(heads, batches, batches.steps_per_epoch, fitting, test)


def _fit(heads: Heads, batches: Iterable[Share], steps_per_epoch: int, fitting: Fitting, test: Labelled) -> Fitted:
    best = BestEpoch(heads, test) if fitting.report == "best_epoch" else None
    fit(heads, batches, steps_per_epoch, fitting, best)
    return Fitted(heads, best, fitting)


def choose(rows: list[Row]) -> list[Row]:
    """Mark for each part, as "shown", the learning rate that does best on the first test it appears in."""
    first, best = {}, {}
    for row in rows:
        first.setdefault(row["part"], row["test"])
        if row["test"] == first[row["part"]]:
            leader = best.setdefault(row["part"], row)
            if row["accuracy"] > leader["accuracy"]:
                best[row["part"]] = row
    return [row | {"shown": row["lr"] == best[row["part"]]["lr"]} for row in rows]


def _fit_augmented(
    encode: nn.Module,
    encoder: TrainedEncoder,
    bank: Manifest,
    accelerator: Accelerator,
    fitting: Fitting,
    test: Labelled,
    interpolation: Literal["bilinear", "bicubic"],
) -> Fitted:
    images = LabelledBatches(bank, encoder.size, fitting.batch_size, fitting.seed, accelerator, interpolation)

    def encoded() -> Iterator[Share]:
        for batch, labels, total in images:
            with torch.no_grad(), accelerator.autocast(), selection.use(accelerator.execution.kernels):
                rows = encode(batch)
            yield rows[: len(labels)].float(), labels, total

    heads = Heads(encoder.parts, encoder.network.embed_dim, len(bank.classes), fitting, accelerator.device)
    try:
        return _fit(heads, encoded(), images.steps_per_epoch, fitting, test)
    finally:
        images.close()
