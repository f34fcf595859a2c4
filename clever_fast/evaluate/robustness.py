"""What is left of a representation, whole and in parts, when the test images are perturbed: the whole matrix."""

from collections.abc import Sequence
from typing import Literal

import torch

from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.evaluate import knn, labelled, metrics
from clever_fast.evaluate.features import features, for_linear, repeated_features
from clever_fast.evaluate.heads import Fitting
from clever_fast.evaluate.linear import choose, fit_cached, scores, with_original
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
    if "knn" in classifiers:
        knn.check_neighbours([neighbours], len(bank))
    probe = for_linear(encoder)
    encode = accelerator.place(probe.network).eval()
    width = encoder.network.embed_dim
    train = features(encode, bank, encoder.size, accelerator)
    heads = fit_cached(train, probe.parts, len(bank.classes), fitting) if "linear" in classifiers else None
    by_neighbours, by_heads = [], []
    for perturbation in with_original(perturbations):
        tests = repeated_features(
            encode, query, encoder.size, accelerator, perturbation, repetitions=fitting.repetitions, seed=fitting.seed
        )
        known = {"test": perturbation.name}
        if "knn" in classifiers:
            for part, channels in encoder.parts.items():
                own = [(x[:, -width:][:, channels], y) for x, y in (train, *tests)]
                found = [knn.knn_accuracy(*own[0], *test, neighbours=(neighbours,))[neighbours] for test in own[1:]]
                accuracy, spread = (value.item() for value in metrics.spread(torch.tensor(found)))
                row = {"classifier": f"{neighbours}-NN", "part": part, **known}
                by_neighbours.append(row | {"accuracy": accuracy, "spread": spread})
        if heads:
            by_heads += scores(heads, tests, fitting, {"classifier": "linear", **known})
    return by_neighbours + choose(by_heads)
