"""The selective scan in plain torch, as the recurrence reads."""

import torch
from torch import Tensor
from torch.nn import functional as F

from clever_fast.ops.distillation_loss.reference import at_least_float32


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, *, delta_softplus: bool
) -> Tensor:
    K = B.shape[1]
    u, delta, A, B, C, D, delta_bias = (at_least_float32(x) for x in (u, delta, A, B, C, D, delta_bias))
    delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    x, delta = (t.unflatten(1, (K, -1)).unsqueeze(3) for t in (u, delta))  # (N, K, D, 1, L)
    A, B, C = A.unflatten(0, (K, -1)), B.unsqueeze(2), C.unsqueeze(2)  # (K, D, S), (N, K, 1, S, L)
    h, y = torch.zeros_like(A), []
    for t_l, x_l, B_l, C_l in zip(*(t.unbind(-1) for t in (delta, x, B, C)), strict=True):
        h = torch.exp(t_l * A) * h + t_l * x_l * B_l  # (N, K, D, S)
        y.append((h * C_l).sum(-1))
    return torch.stack(y, -1).flatten(1, 2) + D[:, None] * u
