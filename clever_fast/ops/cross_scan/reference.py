"""VMamba's scan of an image in plain torch: four sequences, projections, scans, and their sum."""

import torch
from torch import Tensor

from clever_fast.ops.selective_scan import selective_scan


def cross_scan(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    *,
    scan=selective_scan,
) -> Tensor:
    (_, H, W, _), S, R = x.shape, A.shape[1], dt_weight.shape[2]
    u = four_directions(x)  # (N, 4, D, L)
    projected = torch.einsum("nkdl,kcd->nkcl", u, x_proj_weight.to(x.dtype))
    low, B, C = projected.split([R, S, S], dim=2)
    delta = torch.einsum("nkrl,kdr->nkdl", low, dt_weight.to(low.dtype))
    u, delta, B, C = (t.to(x.dtype) for t in (u.flatten(1, 2), delta.flatten(1, 2), B, C))
    y = scan(u, delta, A, B, C, D, delta_bias)
    return sum_of_directions(y.unflatten(1, (4, -1)), H, W)


def four_directions(x: Tensor) -> Tensor:
    """(N, H, W, D) -> (N, 4, D, L): row by row, column by column, and both backwards."""
    rows, columns = x.permute(0, 3, 1, 2).flatten(2), x.permute(0, 3, 2, 1).flatten(2)
    forwards = torch.stack([rows, columns], dim=1)
    return torch.cat([forwards, forwards.flip(-1)], dim=1)


def sum_of_directions(y: Tensor, H: int, W: int) -> Tensor:
    """(N, 4, D, L) -> (N, H, W, D): each direction back in its place, added."""
    forwards = y[:, :2] + y[:, 2:].flip(-1)
    return forwards[:, 0].unflatten(-1, (H, W)).permute(0, 2, 3, 1) + forwards[:, 1].unflatten(-1, (W, H)).permute(
        0, 3, 2, 1
    )
