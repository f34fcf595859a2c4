"""What is done to test images, after the resize and the central crop: the paper's perturbed test sets as values."""

from __future__ import annotations

from dataclasses import dataclass

from clever_fast.pipelines.augmentations import ColorJitter, Elastic, Flip, Rotation
from clever_fast.pipelines.views import Augmentation


@dataclass(frozen=True)
class Perturbation:
    """Operations that follow one another; the resize before them is bicubic for upright images, else bilinear."""

    name: str
    augmentations: tuple[Augmentation, ...] = ()
    bicubic: bool = False

    @property
    def draws(self) -> int:
        """Uniforms that one image consumes; without any, every repetition is the same."""
        return sum(augmentation.draws for augmentation in self.augmentations)


def _elastic(alpha: int) -> Elastic:
    return Elastic(alpha=float(alpha), probability=1.0)


COLOR, ROTATION = ColorJitter(0.4, 0.4, 0.4, 0.1, probability=1.0), Rotation(90.0)
ORIG = Perturbation("Orig", bicubic=True)
BILINEAR = Perturbation("Orig")  # as SimSiam's and DDCL's released code resizes
PUBLISHED = (
    ORIG,
    Perturbation("CJ", (COLOR,)),
    Perturbation("CJ+Flip", (COLOR, Flip(probability=1.0))),
    Perturbation("CJ+Ro", (ROTATION, COLOR)),
    *(Perturbation(f"CJ+Ro+ET{alpha}", (ROTATION, COLOR, _elastic(alpha))) for alpha in (50, 100, 150)),
)
SINGLE = (Perturbation("Ro", (ROTATION,)), Perturbation("ET", (_elastic(100),)))
PERTURBATIONS = {perturbation.name: perturbation for perturbation in (*PUBLISHED, *SINGLE)}
