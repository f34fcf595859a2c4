"""Changes to lists of tensors in plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor


def clip_each_(tensors: Sequence[Tensor], norms: Tensor, largest: float) -> None:
    torch._foreach_mul_(tensors, list((largest / (norms + 1e-6)).clamp_max(1.0)))


def lerp_each_(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: Tensor) -> None:
    torch._foreach_lerp_(tensors, ends, [weight] * len(tensors))
