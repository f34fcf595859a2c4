"""The augmentation policies as values, each plain, with rotation, and with rotation and elastic deformation.

BAUG, CAUG and CAUG_PLUS are those of DINO and CLeVER; MOCO_BAUG, MOCO_CAUG and MOCO_CAUG_PLUS those of SimSiam and
DDCL, whose released code names them alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clever_fast.errors import UserError
from clever_fast.pipelines.augmentations import ColorJitter, Elastic, GaussianBlur, Grayscale, Rotation, Solarize
from clever_fast.pipelines.views import Augmentation, View


@dataclass(frozen=True)
class Policy:
    """The views made of every image: two global ones first, then the local ones, if it has any."""

    name: str
    views: tuple[View, ...]

    def with_crops(
        self,
        *,
        global_size: int,
        local_size: int,
        local_crops: int,
        global_scale: float | None = None,
        max_blur: float = 2.0,
    ) -> Policy:
        """The same augmentations at other sizes (pixels), with another number of local crops, which may be 0.

        global_scale: the smallest area of a global crop, as a share of the image's; None for the policy's own.
        max_blur: the largest sigma of the gaussian blur, in pixels of the crop; small crops bear less of it.

        Raises:
            UserError: local crops of a policy that has none.
        """
        if local_crops and len(self.views) == 2:
            raise UserError(
                f"the policy {self.name} makes no local crops: give --recipe.local_crops 0, not {local_crops}"
            )

        def view(old: View, size: int, count: int, scale: tuple[float, float]) -> View:
            blurred = [
                replace(a, sigma=(min(a.sigma[0], max_blur), max_blur)) if isinstance(a, GaussianBlur) else a
                for a in old.augmentations
            ]
            return replace(old, size=size, count=count, scale=scale, augmentations=tuple(blurred))

        views = [view(old, global_size, 1, (global_scale or old.scale[0], 1.0)) for old in self.views[:2]]
        views += [view(old, local_size, local_crops, old.scale) for old in self.views[2:]]
        return replace(self, views=tuple(views))


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


def _moco(name: str, geometry: tuple[Augmentation, ...]) -> Policy:
    """MoCo v2's two views, the geometry last. Their flip, the last before it, commutes with colour and blur."""
    color = (ColorJitter(saturation=0.4), Grayscale(), GaussianBlur(0.5))
    view = View(1, 224, (0.2, 1.0), (*color, *geometry), interpolation="bilinear")
    return Policy(name, (view, view))


MOCO_BAUG = _moco("moco_baug", ())
MOCO_CAUG = _moco("moco_caug", (Rotation(),))
MOCO_CAUG_PLUS = _moco("moco_caug_plus", (Rotation(), Elastic()))

POLICIES = {policy.name: policy for policy in (BAUG, CAUG, CAUG_PLUS, MOCO_BAUG, MOCO_CAUG, MOCO_CAUG_PLUS)}
