"""PReg in plain torch, as the equation reads."""

from collections.abc import Sequence

from torch import Tensor


def norm_gap(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    return (squared_norm(left) - squared_norm(right)).abs()


def squared_norm(tensors: Sequence[Tensor]) -> Tensor:
    return sum(t.square().sum() for t in tensors)
