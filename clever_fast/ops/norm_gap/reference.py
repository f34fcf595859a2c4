"""PReg in plain torch, as the equation reads."""

from collections.abc import Sequence

import torch
from torch import Tensor


def norm_gap(left: Sequence[Tensor], right: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    totals = squared_norm(left), squared_norm(right)
    return (totals[0] - totals[1]).abs(), torch.stack(totals).detach()


def squared_norm(tensors: Sequence[Tensor]) -> Tensor:
    return sum(t.square().sum() for t in tensors)
