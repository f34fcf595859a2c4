"""What a view of an image is: a crop of a size and scale, and the augmentations that follow, in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Literal, Protocol

import numpy as np

from clever_fast.pipelines.augmentations import CentralCrop, RandomResizedCrop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]


@dataclass(frozen=True)
class Canvas:
    """Where an augmentation works on a CPU.

    size: height and width of the view in pixels. elastic_field: the smooth field that every elastic deformation is cut
    from, at every pixel; None without one.
    """

    size: int
    elastic_field: np.ndarray | None = None


class Augmentation(Protocol):
    """A random operation on uint8 HWC images, its numbers drawn outside of it.

    Implementations are frozen dataclasses. `draws` is how many uniforms one view consumes; `op` is the op of
    clever_fast.ops that does it on a GPU, `place` its place among the operations of one call.
    """

    draws: ClassVar[int]
    op: ClassVar[str]
    place: ClassVar[int]

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """Parameters, one row per view of `size` pixels, from uniforms (N, draws) float64 in [0, 1)."""
        ...

    def columns(self, parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray | float]:
        """Columns of the op's parameters, from what `sample` returned; those left out keep their neutral value."""
        ...

    def on_cpu(self, image: np.ndarray, parameters: dict[str, np.ndarray], canvas: Canvas) -> np.ndarray:
        """The same of one contiguous image by OpenCV or numpy."""
        ...


@dataclass(frozen=True)
class View:
    """`count` crops of `size` x `size` pixels, each covering a fraction of the image's area within `scale`.

    The crop (RandomResizedCrop, ratio 3/4 to 4/3) and the horizontal flip come first, the normalisation last; the
    augmentations stand between them in their own order.
    """

    count: int
    size: int
    scale: tuple[float, float]
    augmentations: tuple[Augmentation, ...] = ()
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    @property
    def crop(self) -> RandomResizedCrop:
        return RandomResizedCrop(self.scale, self.interpolation)


@dataclass(frozen=True)
class CentralView:
    """The centre of an image at `size` x `size` pixels, and the augmentations that follow, in order."""

    size: int
    augmentations: tuple[Augmentation, ...] = ()
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    count: ClassVar[int] = 1

    @property
    def crop(self) -> CentralCrop:
        return CentralCrop(self.interpolation)


def by_crop(batches: Iterable[np.ndarray], n: int) -> list[np.ndarray]:
    """Crop-major batches of n images as one array (n, S, S, 3) for each crop."""
    return [batch[first : first + n] for batch in batches for first in range(0, len(batch), n)]


def size_runs(views: Iterable[View | CentralView]) -> list[tuple[int, int]]:
    """(pixels, crops) of every run of consecutive crops of one size: what a network takes as one batch."""
    return [(size, sum(view.count for view in run)) for size, run in groupby(views, lambda view: view.size)]
