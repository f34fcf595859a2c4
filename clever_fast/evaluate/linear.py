"""Linear classification of frozen features, and of perturbed test images."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from clever_fast.accelerator import Accelerator
from clever_fast.data import LabelledBatches
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.evaluate import labelled, metrics
from clever_fast.evaluate.features import Labelled, features, for_linear, repeated_features
from clever_fast.evaluate.heads import CachedBatches, Fitting, Heads, fit
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
) -> list[Row]:
    """Train classifiers of every part and learning rate in one pass over the data, then test them on perturbed images.

    augment: a random crop and flip of every training image, so one forward pass of the data an epoch; without, the
    images are encoded once and the features stay on the device.
    """
    labelled.check(bank, query)
    encoder = for_linear(encoder)
    encode = accelerator.place(encoder.network).eval()
    if augment:
        heads = _fit_augmented(encode, encoder, bank, accelerator, fitting)
    else:
        train = features(encode, bank, encoder.size, accelerator)
        heads = fit_cached(train, encoder.parts, len(bank.classes), fitting)
    rows = []
    for perturbation in with_original(perturbations):
        tests = repeated_features(
            encode, query, encoder.size, accelerator, perturbation, repetitions=fitting.repetitions, seed=fitting.seed
        )
        rows += scores(heads, tests, fitting, {"test": perturbation.name})
    return choose(rows)


def with_original(perturbations: Sequence[Perturbation]) -> list[Perturbation]:
    """The unperturbed images first: learning rates are chosen on them."""
    return [ORIG, *(perturbation for perturbation in perturbations if perturbation != ORIG)]


def fit_cached(train: Labelled, parts: dict[str, slice], classes: int, fitting: Fitting) -> Heads:
    """Classifiers of features that are there already."""
    batches = CachedBatches(*train, batch_size=fitting.batch_size, seed=fitting.seed)
    heads = Heads(parts, train[0].shape[1], classes, fitting, train[0].device)
    fit(heads, batches, batches.steps_per_epoch, fitting)
    return heads


def scores(heads: Heads, tests: list[Labelled], fitting: Fitting, known: Row) -> list[Row]:
    """Accuracy of every part and learning rate: mean and standard deviation over the repetitions of a test."""
    rows = []
    for part in heads.parts:
        of_each = torch.stack([metrics.accuracy(heads.predict(x, part), y) for x, y in tests])
        mean, deviation = (value.tolist() for value in metrics.spread(of_each))
        for lr, accuracy, spread in zip(fitting.lrs, mean, deviation, strict=True):
            rows.append({"part": part, **known, "lr": lr, "accuracy": accuracy, "spread": spread})
    return rows


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
    encode: nn.Module, encoder: TrainedEncoder, bank: Manifest, accelerator: Accelerator, fitting: Fitting
) -> Heads:
    images = LabelledBatches(bank, encoder.size, fitting.batch_size, fitting.seed, accelerator)

    def encoded() -> Iterator[Labelled]:
        for batch, labels in images:
            with torch.no_grad(), accelerator.autocast(), selection.use(accelerator.execution.kernels):
                rows = encode(batch)
            yield rows.float(), labels

    heads = Heads(encoder.parts, encoder.network.embed_dim, len(bank.classes), fitting, accelerator.device)
    try:
        fit(heads, encoded(), images.steps_per_epoch, fitting)
    finally:
        images.close()
    return heads
