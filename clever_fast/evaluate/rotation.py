"""What the parts of a representation keep of an image's orientation, told by linear classifiers of frozen features."""

import torch

from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.evaluate import labelled
from clever_fast.evaluate.features import Labelled, features, for_linear, repeated_features
from clever_fast.evaluate.heads import Fitting
from clever_fast.evaluate.linear import choose, fit_cached, scores
from clever_fast.evaluate.results import Row
from clever_fast.pipelines.augmentations import Rotation, Turn
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.perturbations import ORIG, Perturbation

ANY_ANGLE = Perturbation("rotated", (Rotation(180.0),))
TURNS = tuple(Perturbation(f"turned by {90 * quarters}", (Turn(quarters),), bicubic=True) for quarters in range(4))


def rotation(
    encoder: TrainedEncoder,
    bank: Manifest,
    query: Manifest,
    accelerator: Accelerator,
    fitting: Fitting,
) -> list[Row]:
    """Invariance and sensitivity to rotation, for every part.

    - upright, rotated: classes of test images as they are, and rotated by random angles of U(-180, 180) degrees, told
      by classifiers of upright training images. An invariant representation loses nothing.
    - four-fold: which of 0, 90, 180 and 270 degrees an image was turned by, told by classifiers of training images
      turned likewise. An invariant representation is left with chance, 25 %.
    """
    labelled.check(bank, query)
    probe = for_linear(encoder)
    encode, size = accelerator.place(probe.network).eval(), encoder.size
    classes = fit_cached(features(encode, bank, size, accelerator), probe.parts, len(bank.classes), fitting)
    rows = []
    for task, perturbation in (("upright", ORIG), ("rotated", ANY_ANGLE)):
        tests = repeated_features(
            encode, query, size, accelerator, perturbation, repetitions=fitting.repetitions, seed=fitting.seed
        )
        rows += scores(classes, tests, fitting, {"test": task})

    def turned(manifest: Manifest) -> Labelled:
        each = [features(encode, manifest, size, accelerator, perturbation=turn)[0] for turn in TURNS]
        quarters = [torch.full((len(x),), i, device=x.device) for i, x in enumerate(each)]
        return torch.cat(each), torch.cat(quarters)

    orientations = fit_cached(turned(bank), probe.parts, len(TURNS), fitting)
    rows = choose(rows) + choose(scores(orientations, [turned(query)], fitting, {"test": "four-fold"}))
    chance = {"upright": len(bank.classes), "rotated": len(bank.classes), "four-fold": len(TURNS)}
    return rows + [{"part": "chance", "test": task, "accuracy": 100 / count} for task, count in chance.items()]
