"""The augmentation policies as values, each plain, with rotation, and with rotation and elastic deformation.

BAUG, CAUG and CAUG_PLUS are those of DINO and CLeVER; MOCO_BAUG, MOCO_CAUG and MOCO_CAUG_PLUS those of SimSiam and
DDCL, whose released code names them alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from clever_fast.errors import UserError
from clever_fast.import_paths import find, import_path
from clever_fast.pipelines.augmentations import ColorJitter, Elastic, GaussianBlur, Grayscale, Rotation, Solarize
from clever_fast.pipelines.views import Augmentation, View

AUGMENTATIONS: dict[str, Any] = {
    kind.__name__: kind for kind in (ColorJitter, Elastic, GaussianBlur, Grayscale, Rotation, Solarize)
}


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
        max_blur: float | None = None,
    ) -> Policy:
        """The same augmentations at other sizes (pixels), with another number of local crops, which may be 0.

        global_scale: the smallest area of a global crop, as a share of the image's; None for the policy's own.
        max_blur: the largest sigma of the gaussian blur, in pixels of the crop; small crops bear less of it. None for
            the policy's own.

        Raises:
            UserError: local crops of a policy that has none.
        """
        if local_crops and len(self.views) == 2:
            raise UserError(
                f"the policy {self.name} makes no local crops: give --recipe.local_crops 0, not {local_crops}"
            )

        def view(old: View, size: int, count: int, scale: tuple[float, float]) -> View:
            blurred = [
                replace(a, sigma=(min(a.sigma[0], max_blur), max_blur))
                if max_blur and isinstance(a, GaussianBlur)
                else a
                for a in old.augmentations
            ]
            return replace(old, size=size, count=count, scale=scale, augmentations=tuple(blurred))

        views = [view(old, global_size, 1, (global_scale or old.scale[0], 1.0)) for old in self.views[:2]]
        if local_crops:
            views += [view(old, local_size, local_crops, old.scale) for old in self.views[2:]]
        return replace(self, views=tuple(views))

    @property
    def largest_blur(self) -> float | None:
        """The largest sigma of its gaussian blurs in pixels, None where it has none."""
        steps = [step for view in self.views for step in view.augmentations if isinstance(step, GaussianBlur)]
        return max((step.sigma[1] for step in steps), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values, each augmentation under the name of its class (an import path for one of one's own)."""
        return {"name": self.name, "views": [_view_dict(view) for view in self.views]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Policy:
        """The inverse of `as_dict`.

        Raises:
            UserError: a field or an augmentation that this version does not know; names it.
        """
        try:
            return cls(plain["name"], tuple(_view(view) for view in plain["views"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not a policy of this version of clever_fast: {error}") from error


def _view_dict(view: View) -> dict[str, Any]:
    plain = {field.name: getattr(view, field.name) for field in fields(view)}
    kinds = [type(augmentation) for augmentation in view.augmentations]
    names = [kind.__name__ if AUGMENTATIONS.get(kind.__name__) is kind else import_path(kind) for kind in kinds]
    own = [{"name": name, **_fields(a)} for name, a in zip(names, view.augmentations, strict=True)]
    return _plain({**plain, "augmentations": own})


def _view(plain: dict[str, Any]) -> View:
    made = []
    for given in plain["augmentations"]:
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        name = str(values.pop("name"))
        if ":" not in name and name not in AUGMENTATIONS:
            raise UserError(f"no augmentation is called {name!r}; there are {', '.join(AUGMENTATIONS)}")
        made.append((find(name) if ":" in name else AUGMENTATIONS[name])(**values))
    return View(**{**plain, "scale": tuple(plain["scale"]), "augmentations": tuple(made)})


def _fields(augmentation: Any) -> dict[str, Any]:
    return asdict(augmentation)


def _plain(value: Any) -> Any:
    """With lists in place of tuples, as JSON and YAML would give them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


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
