"""What the fused operator computes, in torch's own operators: for exporters that do not know ours."""

import torch
from torch import Tensor

from clever_fast.ops import extension
from clever_fast.ops.cross_scan.reference import four_directions, sum_of_directions
from clever_fast.ops.selective_scan import doubling


def cross_scan(
    x: Tensor, low: Tensor, weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor, _segment: int
) -> tuple[Tensor, Tensor]:
    """Of the operator's arguments and results; the states, which only its backward pass reads, are empty."""
    (_, H, W, _), R, S = x.shape, weight.shape[1], A.shape[1]
    projected = torch.stack([four_directions(low[:, :, :, k])[:, k] for k in range(4)], dim=1)  # (N, 4, R + 2S, L)
    steps, B, C = projected.split([R, S, S], dim=2)
    delta = torch.einsum("nkrl,krd->nkdl", steps, weight)
    u, A = four_directions(x).flatten(1, 2), A.transpose(1, 2).flatten(0, 1)
    y = doubling.selective_scan(u, delta.flatten(1, 2), A, B, C, D.flatten(), delta_bias.flatten())
    return sum_of_directions(y.unflatten(1, (4, -1)), H, W), x.new_empty(0)


# for torch.export's `run_decompositions`; empty without the library, where the reference runs, position after position
DECOMPOSITIONS = {} if extension.missing else {torch.ops.clever_fast.cross_scan.default: cross_scan}
