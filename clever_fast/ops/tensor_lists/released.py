"""Changes to lists of tensors as the released code makes them: one after another, asking the device for each norm."""

from collections.abc import Sequence

from torch import Tensor


def clip_each_(tensors: Sequence[Tensor], norms: Tensor, largest: float) -> None:
    for t in tensors:
        scale = largest / (t.norm(2) + 1e-6)
        if scale < 1:
            t.mul_(scale)


def lerp_each_(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: Tensor) -> None:
    for t, end in zip(tensors, ends, strict=True):
        t.mul_(1 - weight).add_(weight * end)
