"""Photometry of a batch of crops as four Triton launches, whatever the crops' parameters.

mean_luma   a program for each crop: the mean luma after the hue is turned, where the contrast changes
colour      a program for each block of pixels: hue, matrix and grayscale; a crop that is not blurred is finished
blur_rows   of those that are blurred: the horizontal taps, kept in 16 bits as 256ths of a grey level
blur_columns  the vertical taps, solarisation and normalisation

A program of a crop that does not need its kernel ends at once. No hue is ever computed: for the channel X and its two
neighbours Y, Z in cyclic order, with V = max, m = min, C = V - m, the distance of the hue from X in sixths of a turn,
times C, is u = q + w + 2 min(C - q, w), where q = |Y - Z| and w = V - X; its sign is that of Y - Z. A channel is
m + clamp(2C - min(|u|, 6C - |u|), 0, C) at any hue. Sums are made in a fixed order, so equal inputs give equal bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from clever_fast.ops.photometry.reference import MEAN, STD

PIXELS, VALUES, WARPS = 1024, 2048, 4  # of one program of `colour`, of `blur_*`; warps of every program
P = tl.constexpr(7)  # parameters of a crop
# the columns
BRIGHTNESS, CONTRAST, SATURATION, HUE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
GRAYSCALE, SIGMA, SOLARIZE = tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)
SCALES = tl.constexpr(tuple(1 / (255 * std) for std in STD))
OFFSETS = tl.constexpr(tuple(-mean / std for mean, std in zip(MEAN, STD)))


@triton.jit
def _pixels(crop, k, inside):
    """The colours of the crop's pixels k, float32; black past the end."""
    at = crop + 3 * k
    r = tl.load(at, mask=inside, other=0).to(tl.float32)
    g = tl.load(at + 1, mask=inside, other=0).to(tl.float32)
    b = tl.load(at + 2, mask=inside, other=0).to(tl.float32)
    return r, g, b


@triton.jit
def _channel(x, y, z, highest, lowest, sextants):
    """One channel x, its next two y and z, after the hue is turned."""
    chroma = highest - lowest
    difference = y - z
    gap = tl.abs(difference)
    below = highest - x
    distance = gap + below + 2.0 * tl.minimum(chroma - gap, below)
    shift = sextants * chroma
    turned = tl.abs(distance + tl.where(difference < 0.0, -shift, shift))
    turned = tl.minimum(turned, 6.0 * chroma - turned)  # beyond half a turn, the other way round is shorter
    return lowest + tl.minimum(tl.maximum(2.0 * chroma - turned, 0.0), chroma)


@triton.jit
def _turn_hue(r, g, b, turns):
    highest = tl.maximum(tl.maximum(r, g), b)
    lowest = tl.minimum(tl.minimum(r, g), b)
    sextants = 6.0 * turns
    return (
        _channel(r, g, b, highest, lowest, sextants),
        _channel(g, b, r, highest, lowest, sextants),
        _channel(b, r, g, highest, lowest, sextants),
    )


@triton.jit
def _luma(r, g, b):
    return 0.299 * r + 0.587 * g + 0.114 * b


@triton.jit
def _level(x):
    """The nearest whole grey level from 0 to 255, halves up."""
    return tl.floor(tl.minimum(tl.maximum(x, 0.0), 255.0) + 0.5)


@triton.jit
def _finish(out, k, x, scale, offset, solarize, inside, NORMALIZE: tl.constexpr):
    """Solarises, normalises and stores grey levels."""
    x = tl.where(solarize, tl.minimum(x, 255.0 - x), x)
    if NORMALIZE:
        x = x * scale + offset
    tl.store(out + k, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _reflect(place, SIZE: tl.constexpr):
    """Places less than SIZE outside, mirrored at the first and the last pixel."""
    folded = tl.abs(place)
    return tl.minimum(folded, 2 * (SIZE - 1) - folded)


@triton.jit
def _taps(sigma, SIZE: tl.constexpr):
    """The filter's radius, the factor of squares in its exponents of two, and one over the sum of its weights."""
    radius = tl.minimum(tl.ceil(3.0 * sigma), SIZE - 1.0).to(tl.int32)
    rate = -0.5 * 1.4426950408889634 / (sigma * sigma)
    total = 1.0
    for k in range(1, radius + 1):
        total += 2.0 * tl.exp2(rate * (k * k))
    return radius, rate, 1.0 / total


@triton.jit
def mean_luma(crops, parameters, means, N, crop_v, crop_n, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """One crop's mean luma after its hue is turned, to means (V*N,) float32; nothing where the contrast stays."""
    m = tl.program_id(0).to(tl.int64)
    crops += m // N * crop_v + m % N * crop_n
    parameters += m * P
    if tl.load(parameters + CONTRAST) != 1.0:
        turns = tl.load(parameters + HUE)
        total = tl.zeros((BLOCK,), tl.float32)
        for at in range(0, SIZE * SIZE, BLOCK):
            k = at + tl.arange(0, BLOCK)
            r, g, b = _pixels(crops, k, k < SIZE * SIZE)
            r, g, b = _turn_hue(r, g, b, turns)
            total += _luma(r, g, b)
        tl.store(means + m, tl.sum(total, 0) / (SIZE * SIZE))


@triton.jit
def colour(
    crops, parameters, means, sharp, out, N, crop_v, crop_n,
    SIZE: tl.constexpr, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of a crop's pixels: to `out` where the crop is not blurred, else to sharp (V*N, S, S, 3) uint8."""
    m = tl.program_id(0).to(tl.int64)
    crops += m // N * crop_v + m % N * crop_n
    parameters += m * P
    sharp += m * (3 * SIZE * SIZE)
    out += m * (3 * SIZE * SIZE)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = k < SIZE * SIZE
    r, g, b = _pixels(crops, k, inside)
    r, g, b = _turn_hue(r, g, b, tl.load(parameters + HUE))

    brightness = tl.load(parameters + BRIGHTNESS)
    contrast = tl.load(parameters + CONTRAST)
    saturation = tl.load(parameters + SATURATION)
    mean = tl.load(means + m, mask=contrast != 1.0, other=0.0)
    scale = brightness * contrast
    grey = scale * (1.0 - saturation) * _luma(r, g, b) + brightness * (1.0 - contrast) * mean
    r = _level(scale * saturation * r + grey)
    g = _level(scale * saturation * g + grey)
    b = _level(scale * saturation * b + grey)

    is_grey = tl.load(parameters + GRAYSCALE) != 0.0
    luma = _level(_luma(r, g, b))
    r = tl.where(is_grey, luma, r)
    g = tl.where(is_grey, luma, g)
    b = tl.where(is_grey, luma, b)
    if tl.load(parameters + SIGMA) > 0.0:
        tl.store(sharp + 3 * k, r.to(tl.uint8), mask=inside)
        tl.store(sharp + 3 * k + 1, g.to(tl.uint8), mask=inside)
        tl.store(sharp + 3 * k + 2, b.to(tl.uint8), mask=inside)
    else:
        solarize = tl.load(parameters + SOLARIZE) != 0.0
        _finish(out, 3 * k, r, SCALES[0], OFFSETS[0], solarize, inside, NORMALIZE)
        _finish(out, 3 * k + 1, g, SCALES[1], OFFSETS[1], solarize, inside, NORMALIZE)
        _finish(out, 3 * k + 2, b, SCALES[2], OFFSETS[2], solarize, inside, NORMALIZE)


@triton.jit
def blur_rows(sharp, parameters, rows, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """One block of a crop's values, blurred along x, to rows (V*N, S, S, 3) uint16 in 256ths of a grey level."""
    m = tl.program_id(0).to(tl.int64)
    sigma = tl.load(parameters + m * P + SIGMA)
    if sigma > 0.0:
        sharp += m * (3 * SIZE * SIZE)
        rows += m * (3 * SIZE * SIZE)
        k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = k < 3 * SIZE * SIZE
        pixel = k // 3
        x = pixel % SIZE
        radius, rate, norm = _taps(sigma, SIZE)
        total = tl.load(sharp + k, mask=inside, other=0).to(tl.float32)
        for tap in range(1, radius + 1):
            left = tl.load(sharp + k + 3 * (_reflect(x - tap, SIZE) - x), mask=inside, other=0).to(tl.float32)
            right = tl.load(sharp + k + 3 * (_reflect(x + tap, SIZE) - x), mask=inside, other=0).to(tl.float32)
            total += tl.exp2(rate * (tap * tap)) * (left + right)
        tl.store(rows + k, (total * (256.0 * norm) + 0.5).to(tl.uint16), mask=inside)


@triton.jit
def blur_columns(rows, parameters, out, SIZE: tl.constexpr, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr):
    """The same along y, to `out`."""
    m = tl.program_id(0).to(tl.int64)
    sigma = tl.load(parameters + m * P + SIGMA)
    if sigma > 0.0:
        rows += m * (3 * SIZE * SIZE)
        out += m * (3 * SIZE * SIZE)
        k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = k < 3 * SIZE * SIZE
        y = k // (3 * SIZE)
        radius, rate, norm = _taps(sigma, SIZE)
        total = tl.load(rows + k, mask=inside, other=0).to(tl.float32)
        for tap in range(1, radius + 1):
            above = tl.load(rows + k + 3 * SIZE * (_reflect(y - tap, SIZE) - y), mask=inside, other=0).to(tl.float32)
            below = tl.load(rows + k + 3 * SIZE * (_reflect(y + tap, SIZE) - y), mask=inside, other=0).to(tl.float32)
            total += tl.exp2(rate * (tap * tap)) * (above + below)
        channel = k % 3
        scale = tl.where(channel == 0, SCALES[0], tl.where(channel == 1, SCALES[1], SCALES[2]))
        offset = tl.where(channel == 0, OFFSETS[0], tl.where(channel == 1, OFFSETS[1], OFFSETS[2]))
        solarize = tl.load(parameters + m * P + SOLARIZE) != 0.0
        _finish(out, k, _level(total * (norm / 256.0)), scale, offset, solarize, inside, NORMALIZE)


def photometry(crops: Tensor, parameters: Tensor, out: Tensor) -> Tensor:
    V, N, S = crops.shape[:3]
    M, normalize = V * N, out.dtype != torch.uint8
    means = torch.empty(M, dtype=torch.float32, device=crops.device)
    sharp = torch.empty(M, S, S, 3, dtype=torch.uint8, device=crops.device)
    rows = torch.empty(M, S, S, 3, dtype=torch.uint16, device=crops.device)
    places = N, crops.stride(0), crops.stride(1)
    values = M, triton.cdiv(3 * S * S, VALUES)
    with torch.cuda.device_of(crops):  # Triton launches on the current device
        mean_luma[M,](crops, parameters, means, *places, SIZE=S, BLOCK=PIXELS, num_warps=WARPS)
        colour[M, triton.cdiv(S * S, PIXELS)](
            crops, parameters, means, sharp, out, *places,
            SIZE=S, NORMALIZE=normalize, BLOCK=PIXELS, num_warps=WARPS,
        )  # fmt: skip
        blur_rows[values](sharp, parameters, rows, SIZE=S, BLOCK=VALUES, num_warps=WARPS)
        blur_columns[values](rows, parameters, out, SIZE=S, NORMALIZE=normalize, BLOCK=VALUES, num_warps=WARPS)
    return out
