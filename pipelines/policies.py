"""The augmentation policies of CLeVER as values: BAUG, CAUG (with rotation), CAUG_PLUS (with rotation and elastic)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clever_fast.pipelines.augmentations import ColorJitter, Elastic, GaussianBlur, Grayscale, Rotation, Solarize
from clever_fast.pipelines.views import Augmentation, View


@dataclass(frozen=True)
class Policy:
    """The views made of every image: two global ones first, then the local ones."""

    name: str
    views: tuple[View, ...]

    def with_crops(self, *, global_size: int, local_size: int, local_crops: int) -> Policy:
        """The same augmentations at other sizes (pixels) and with another number of local crops, which may be 0."""
        first, second, local = self.views
        return replace(
            self,
            views=(
                replace(first, size=global_size),
                replace(second, size=global_size),
                replace(local, size=local_size, count=local_crops),
            ),
        )


def _policy(name: str, geometry: tuple[Augmentation, ...]) -> Policy:
    color = (ColorJitter(), Grayscale())

    def view(count: int, size: int, scale: tuple[float, float], *last: Augmentation) -> View:
        return View(count, size, scale, (*geometry, *color, *last))

    return Policy(
        name,
        (
            view(1, 224, (0.4, 1.0), GaussianBlur(1.0)),
            view(1, 224, (0.4, 1.0), GaussianBlur(0.1), Solarize(0.2)),
            view(8, 96, (0.05, 0.4), GaussianBlur(0.5)),
        ),
    )


BAUG = _policy("baug", ())
CAUG = _policy("caug", (Rotation(),))
CAUG_PLUS = _policy("caug_plus", (Rotation(), Elastic()))
POLICIES = {policy.name: policy for policy in (BAUG, CAUG, CAUG_PLUS)}
