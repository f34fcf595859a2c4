"""What the parts of a representation keep of an image's orientation, told by linear classifiers of frozen features."""

import torch

from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.evaluate import labelled
from clever_fast.evaluate.features import Labelled, features, for_linear, repeated_features
from clever_fast.evaluate.heads import Fitting
from clever_fast.evaluate.linear import choose, fit_cached
from clever_fast.evaluate.protocol import PROTOCOLS
from clever_fast.evaluate.results import Row
from clever_fast.pipelines.augmentations import Rotation, Turn
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.perturbations import Perturbation

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
    protocol = PROTOCOLS[encoder.protocol]
    fitting, probe = fitting.under(protocol, published=False), for_linear(encoder)
    encode, size = accelerator.place(probe.network).eval(), encoder.size
    train, upright = (
        features(encode, data, size, accelerator, perturbation=protocol.original) for data in (bank, query)
    )
    classes = fit_cached(train, probe.parts, len(bank.classes), fitting, upright)
    rows = classes.scores([upright], {"test": "upright"})
    tests = repeated_features(
        encode, query, size, accelerator, ANY_ANGLE, repetitions=fitting.repetitions, seed=fitting.seed
    )
    rows += classes.scores(tests, {"test": "rotated"}, best=protocol.perturbed_by_best)

    def turned(manifest: Manifest) -> Labelled:
        each = [features(encode, manifest, size, accelerator, perturbation=turn)[0] for turn in TURNS]
        quarters = [torch.full((len(x),), i, device=x.device) for i, x in enumerate(each)]
        return torch.cat(each), torch.cat(quarters)

    test = turned(query)
    orientations = fit_cached(turned(bank), probe.parts, len(TURNS), fitting, test)
    rows = choose(rows) + choose(orientations.scores([test], {"test": "four-fold"}))
    chance = {"upright": len(bank.classes), "rotated": len(bank.classes), "four-fold": len(TURNS)}
    return rows + [{"part": "chance", "test": task, "accuracy": 100 / count} for task, count in chance.items()]
