"""What is left of a representation, whole and in parts, when the test images are perturbed: the whole matrix."""

from collections.abc import Sequence
from typing import Literal

import torch

from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.evaluate import knn, labelled, metrics
from clever_fast.evaluate.features import features, for_linear, repeated_features
from clever_fast.evaluate.heads import Fitting
from clever_fast.evaluate.linear import choose, fit_cached, without_original
from clever_fast.evaluate.protocol import PROTOCOLS
from clever_fast.evaluate.results import Row
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.perturbations import PUBLISHED, Perturbation

Classifier = Literal["knn", "linear"]


def robustness(
    encoder: TrainedEncoder,
    bank: Manifest,
    query: Manifest,
    accelerator: Accelerator,
    fitting: Fitting,
    *,
    classifiers: Sequence[Classifier] = ("knn", "linear"),
    perturbations: Sequence[Perturbation] = PUBLISHED,
    neighbours: int = 20,
) -> list[Row]:
    """Accuracy of every part under every perturbation, by k-NN and by linear classifiers of unperturbed features.

    The training images are encoded once, the test images once for every perturbation and repetition.
    """
    labelled.check(bank, query)
    protocol = PROTOCOLS[encoder.protocol]
    fitting = fitting.under(protocol, published=False)
    if "knn" in classifiers:
        knn.check_neighbours([neighbours], len(bank))
    probe = for_linear(encoder)
    encode = accelerator.place(probe.network).eval()
    width = encoder.network.embed_dim
    train, original = (
        features(encode, data, encoder.size, accelerator, perturbation=protocol.original) for data in (bank, query)
    )
    linear = "linear" in classifiers
    fitted = fit_cached(train, probe.parts, len(bank.classes), fitting, original) if linear else None
    by_neighbours, by_heads = [], []
    for perturbation in (protocol.original, *without_original(perturbations)):
        upright = perturbation == protocol.original
        tests = (
            [original]
            if upright
            else repeated_features(
                encode,
                query,
                encoder.size,
                accelerator,
                perturbation,
                repetitions=fitting.repetitions,
                seed=fitting.seed,
            )
        )
        known = {"test": perturbation.name}
        if "knn" in classifiers:
            for part, channels in encoder.parts.items():
                own = [(x[:, -width:][:, channels], y) for x, y in (train, *tests)]
                found = [knn.knn_accuracy(*own[0], *test, neighbours=(neighbours,))[neighbours] for test in own[1:]]
                accuracy, spread = (value.item() for value in metrics.spread(torch.tensor(found)))
                row = {"classifier": f"{neighbours}-NN", "part": part, **known}
                by_neighbours.append(row | {"accuracy": accuracy, "spread": spread})
        if fitted:
            best = upright or protocol.perturbed_by_best
            by_heads += fitted.scores(tests, {"classifier": "linear", **known}, best=best)
    return by_neighbours + choose(by_heads)
