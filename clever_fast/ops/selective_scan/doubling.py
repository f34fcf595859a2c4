"""The selective scan in log2 L passes over all elements, of torch's own operators alone: for exporters."""

import torch
from torch import Tensor
from torch.nn import functional as F


def recurrence_terms(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, delta_bias: Tensor) -> tuple[Tensor, Tensor]:
    """log of the decay and the input of h <- decay h + input, both (N, K, D, S, L)."""
    K = B.shape[1]
    delta = F.softplus(delta + delta_bias[:, None]).unflatten(1, (K, -1)).unsqueeze(3)
    log_decay = delta * A.unflatten(0, (K, -1)).unsqueeze(-1)
    return log_decay, delta * u.unflatten(1, (K, -1)).unsqueeze(3) * B.unsqueeze(2)


def output(h: Tensor, u: Tensor, C: Tensor, D: Tensor) -> Tensor:
    return (h * C.unsqueeze(2)).sum(3).flatten(1, 2) + D[:, None] * u


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """As `ops.selective_scan`, by Hillis and Steele's prefix scan: after each pass h_l sums over twice the reach.

    Decays are at most 1 and only multiplied, so nothing overflows.
    """
    log_decay, h = recurrence_terms(u, delta, A, B, delta_bias)
    decay, reach = torch.exp(log_decay), 1
    while reach < u.shape[2]:
        h = h + decay * F.pad(h[..., :-reach], (reach, 0))
        decay = decay * F.pad(decay[..., :-reach], (reach, 0), value=1.0)
        reach *= 2
    return output(h, u, C, D)
