"""What a view of an image is: a crop of a size and scale, and the augmentations that follow, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from clever_fast.pipelines.augmentations import RandomResizedCrop

if TYPE_CHECKING:
    from nvidia.dali.data_node import DataNode

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]


@dataclass(frozen=True)
class Canvas:
    """Where an augmentation works.

    size: height and width of the view in pixels. device: "cpu" or "gpu". elastic_field: the smooth field that every
    elastic deformation is cut from, for `apply` its node, for `on_cpu` its array at every pixel; None without one.
    """

    size: int
    device: str
    elastic_field: DataNode | np.ndarray | None = None


class Augmentation(Protocol):
    """A random operation on uint8 HWC images, its numbers drawn outside the graph.

    Implementations are frozen dataclasses. `draws` is how many uniforms one view consumes.
    """

    draws: ClassVar[int]

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """Parameters, one row per view of `size` pixels, from uniforms (N, draws) float64 in [0, 1)."""
        ...

    def apply(self, images: DataNode, parameters: dict[str, DataNode], canvas: Canvas) -> DataNode:
        """Nodes that turn uint8 HWC images into others of the same size; parameters by the names of `sample`."""
        ...

    def on_cpu(self, image: np.ndarray, parameters: dict[str, np.ndarray], canvas: Canvas) -> np.ndarray:
        """The same of one image by OpenCV or numpy, in the graph of a CPU."""
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
