"""The colours of a batch of crops: jitter, grayscale, blur, solarisation and normalisation."""

import torch
from torch import Tensor

from clever_fast.ops import selection
from clever_fast.ops.photometry import reference
from clever_fast.tracing import ranged

PARAMETERS = ("brightness", "contrast", "saturation", "hue", "grayscale", "blur_sigma", "solarize")
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@ranged("photometry")
def photometry(crops: Tensor, parameters: Tensor, *, out: Tensor) -> Tensor:
    """Changes the colours of every crop by its own parameters, blurs, solarises and normalises it.

    For each crop, with p a pixel's colour from 0 to 255, L = 0.299 R + 0.587 G + 0.114 B its luma, and mean(L) over the
    crop:
        1. p <- p with its HSV hue turned by `hue`
        2. p <- b c (s p + (1 - s) L(p)) + b (1 - c) mean(L), rounded and clamped to 0 .. 255
        3. where `grayscale`: p <- L(p), rounded
        4. where `blur_sigma` > 0: p <- gaussian blur, in either direction of 2 min(ceil(3 sigma), S - 1) + 1 taps, the
           image mirrored at its outermost pixels, rounded
        5. where `solarize`: p <- min(p, 255 - p)
        6. p <- (p / 255 - mean) / std with ImageNet's mean and standard deviation, unless `out` is uint8

    A crop whose parameters are (1, 1, 1, 0, 0, 0, 0) is only normalised. On a GPU the host waits for nothing.

    Args:
        crops: (V, N, S, S, 3) uint8 RGB, each crop contiguous; the first two dimensions may have any strides.
        parameters: (V*N, 7) float32, contiguous, on the same device; the columns are `PARAMETERS`: factors b, c and s
            of brightness, contrast and saturation, turns of the hue (-0.5 to 0.5), and two flags (0 or 1) with sigma
            in pixels between them.
        out: (V*N, 3, S, S) channels-last, crop-major (row v*N + n); uint8, float16, bfloat16, float32 or, for the
            reference, float64. It is written and returned.

    Raises:
        ValueError: shapes, dtypes, devices or memory formats do not fit.

    Source: torchvision's ColorJitter in the fixed order hue, saturation, contrast, brightness with one rounding;
    GaussianBlur and solarisation of DINO's released code.
    """
    check(crops, parameters, out)
    if crops.is_cuda and not selection.reference_is_asked_for():
        from clever_fast.ops.photometry import fused

        return fused.photometry(crops, parameters, out)
    return out.copy_(reference.photometry(crops, parameters, out.dtype))


def check(crops: Tensor, parameters: Tensor, out: Tensor) -> None:
    if crops.ndim != 5 or crops.shape[2] != crops.shape[3] or crops.shape[4] != 3 or 0 in crops.shape:
        raise ValueError(f"crops have shape {tuple(crops.shape)}; expected (V, N, S, S, 3), all at least 1")
    if crops.dtype != torch.uint8 or not crops[0, 0].is_contiguous():
        raise ValueError(f"crops are {crops.dtype} with strides {crops.stride()}; expected uint8, each crop contiguous")
    V, N, S = crops.shape[:3]
    if parameters.shape != (V * N, len(PARAMETERS)) or parameters.dtype != torch.float32:
        raise ValueError(
            f"parameters have shape {tuple(parameters.shape)}, {parameters.dtype}; expected "
            f"({V * N}, {len(PARAMETERS)}) float32"
        )
    if out.shape != (V * N, 3, S, S) or not out.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(
            f"out has shape {tuple(out.shape)} with strides {out.stride()}; expected {(V * N, 3, S, S)} channels-last"
        )
    if out.dtype not in DTYPES:
        raise ValueError(f"out is {out.dtype}; expected one of {', '.join(str(dtype) for dtype in DTYPES)}")
    if not parameters.is_contiguous() or not crops.device == parameters.device == out.device:
        raise ValueError(
            f"crops are on {crops.device}, parameters on {parameters.device}, out on {out.device}; expected one device "
            "and contiguous parameters"
        )
