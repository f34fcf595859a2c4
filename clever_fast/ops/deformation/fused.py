"""Deformation of a batch of crops in one Triton launch, without the turned image between.

Each of the four pixels around a moved place is looked up through the matrix: the nearest pixel is a choice of one, so
the result is that of two images made one after the other.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, WARPS = 512, 4  # pixels and warps of a program
P = tl.constexpr(10)  # parameters of a crop


@triton.jit
def _turned(crop, y, x, matrix, SIZE: tl.constexpr):
    """The three channels, float32, of the turned image at whole places; 0 outside of either image."""
    xx, xy, yx, yy = matrix
    CENTRE: tl.constexpr = (SIZE - 1) / 2
    from_x = tl.floor(CENTRE + xx * (x - CENTRE) + xy * (y - CENTRE) + 0.5)
    from_y = tl.floor(CENTRE + yx * (x - CENTRE) + yy * (y - CENTRE) + 0.5)
    inside = (x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE)
    inside &= (from_x >= 0) & (from_x < SIZE) & (from_y >= 0) & (from_y < SIZE)
    place = crop + 3 * (from_y.to(tl.int32) * SIZE + from_x.to(tl.int32))
    r = tl.load(place, mask=inside, other=0).to(tl.float32)
    g = tl.load(place + 1, mask=inside, other=0).to(tl.float32)
    b = tl.load(place + 2, mask=inside, other=0).to(tl.float32)
    return r, g, b


@triton.jit
def _mixed(crop, y, x, left_share, right_share, matrix, SIZE: tl.constexpr):
    """The turned image between the pixels x and x + 1 of row y."""
    r, g, b = _turned(crop, y, x, matrix, SIZE)
    right_r, right_g, right_b = _turned(crop, y, x + 1.0, matrix, SIZE)
    return (
        left_share * r + right_share * right_r,
        left_share * g + right_share * right_g,
        left_share * b + right_share * right_b,
    )


@triton.jit
def _store(out, k, r, g, b, inside):
    tl.store(out + 3 * k, r.to(tl.uint8), mask=inside)
    tl.store(out + 3 * k + 1, g.to(tl.uint8), mask=inside)
    tl.store(out + 3 * k + 2, b.to(tl.uint8), mask=inside)


@triton.jit
def deform(
    crops, parameters, field, gain, out, N, crop_v, crop_n,
    FIELD: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of a crop's pixels. FIELD: the field's height and width, 0 without one."""
    m = tl.program_id(0).to(tl.int64)
    crops += m // N * crop_v + m % N * crop_n
    parameters += m * P
    out += m * (3 * SIZE * SIZE)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = k < SIZE * SIZE
    column, row = k % SIZE, k // SIZE
    x, y = column.to(tl.float32), row.to(tl.float32)
    matrix = tl.load(parameters), tl.load(parameters + 1), tl.load(parameters + 2), tl.load(parameters + 3)
    scale_y, scale_x = tl.load(parameters + 8), tl.load(parameters + 9)
    moved = False
    if FIELD > 0:
        moved = (scale_y != 0.0) | (scale_x != 0.0)
    if moved:
        from_row = tl.load(parameters + 4).to(tl.int32) + tl.load(parameters + 6).to(tl.int32) * row
        from_column = tl.load(parameters + 5).to(tl.int32) + tl.load(parameters + 7).to(tl.int32) * column
        at = field + from_row * FIELD + from_column
        both = tl.load(gain + row, mask=inside, other=0.0) * tl.load(gain + column, mask=inside, other=0.0)
        x += scale_x * both * tl.load(at, mask=inside, other=0.0)
        y += scale_y * both * tl.load(at + FIELD * FIELD, mask=inside, other=0.0)
        left, top = tl.floor(x), tl.floor(y)
        right_share, lower_share = x - left, y - top
        r, g, b = _mixed(crops, top, left, 1.0 - right_share, right_share, matrix, SIZE)
        lower_r, lower_g, lower_b = _mixed(crops, top + 1.0, left, 1.0 - right_share, right_share, matrix, SIZE)
        r += lower_share * (lower_r - r) + 0.5
        g += lower_share * (lower_g - g) + 0.5
        b += lower_share * (lower_b - b) + 0.5
        _store(out, k, r, g, b, inside)
    else:
        r, g, b = _turned(crops, y, x, matrix, SIZE)
        _store(out, k, r, g, b, inside)


def deformation(crops: Tensor, parameters: Tensor, field: Tensor | None, gain: Tensor | None) -> Tensor:
    V, N, S = crops.shape[:3]
    out = torch.empty(V, N, S, S, 3, dtype=torch.uint8, device=crops.device)
    with torch.cuda.device_of(crops):  # Triton launches on the current device
        deform[V * N, triton.cdiv(S * S, BLOCK)](
            crops, parameters, parameters if field is None else field, parameters if gain is None else gain, out, N,
            crops.stride(0), crops.stride(1),
            FIELD=0 if field is None else field.shape[1], SIZE=S, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return out
