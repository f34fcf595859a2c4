"""The geometry of a batch of crops beyond the region that is cut: flips, rotation and elastic deformation."""

import torch
from torch import Tensor

from clever_fast.ops import selection
from clever_fast.ops.deformation import reference
from clever_fast.tracing import ranged

PARAMETERS = (
    "xx", "xy", "yx", "yy",
    "elastic_y", "elastic_x", "elastic_step_y", "elastic_step_x", "elastic_scale_y", "elastic_scale_x",
)  # fmt: skip


@ranged("deformation")
def deformation(crops: Tensor, parameters: Tensor, field: Tensor | None, gain: Tensor | None = None) -> Tensor:
    """Moves the pixels of every crop, first by a matrix about its centre, then by a smooth displacement.

    With c the centre of a crop, both in pixels:
        turned(p)  = crop(the pixel nearest to c + A (p - c)),              A = ((xx, xy), (yx, yy)) of (x, y)
        moved(p)   = turned at p + scale * gain(y) * gain(x) * field(elastic + step * p), bilinear and rounded
    black wherever a pixel outside is asked for. The rotation by an angle a, counter-clockwise, is
    A = ((cos a, -sin a), (sin a, cos a)). A crop whose two scales are 0 is not moved, and the identity changes no bit.

    Args:
        crops: (V, N, S, S, 3) uint8, each crop contiguous; the first two dimensions may have any strides.
        parameters: (V*N, 10) float32, contiguous, on the same device; the columns are `PARAMETERS`: the matrix, the
            place in the field that the first pixel takes its displacement from, the step to that of the next pixel
            (1 or -1), and pixels per unit of the field.
        field: (2, F, F) float32, the displacements along x and y; None where no crop is moved.
        gain: (S,) float32, by how much more displacements are at each row and column; None for 1 everywhere.

    Returns:
        (V, N, S, S, 3) uint8, contiguous.

    Raises:
        ValueError: shapes, dtypes or devices do not fit.

    Source: torchvision's `rotate` (nearest) and `elastic` (bilinear), one after the other.
    """
    check(crops, parameters, field)
    if field is not None and gain is None:
        gain = crops.new_ones(crops.shape[2], dtype=torch.float32)
    if gain is not None:
        check_gain(gain, crops)
    if crops.is_cuda and not selection.reference_is_asked_for():
        from clever_fast.ops.deformation import fused

        return fused.deformation(crops, parameters, field, gain)
    return reference.deformation(crops, parameters, field, gain)


def check(crops: Tensor, parameters: Tensor, field: Tensor | None) -> None:
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
    if not parameters.is_contiguous() or parameters.device != crops.device:
        raise ValueError(
            f"parameters are on {parameters.device} with strides {parameters.stride()}; expected them contiguous on "
            f"{crops.device}, where the crops are"
        )
    if field is None:
        return
    if field.ndim != 3 or len(field) != 2 or field.shape[1] != field.shape[2] or field.shape[1] < S:
        raise ValueError(f"field has shape {tuple(field.shape)}; expected (2, F, F) with F of at least {S}")
    if field.dtype != torch.float32 or not field.is_contiguous() or field.device != crops.device:
        raise ValueError(
            f"field is {field.dtype} on {field.device} with strides {field.stride()}; expected contiguous float32 on "
            f"{crops.device}, where the crops are"
        )


def check_gain(gain: Tensor, crops: Tensor) -> None:
    S = crops.shape[2]
    if gain.shape != (S,) or gain.dtype != torch.float32 or not gain.is_contiguous() or gain.device != crops.device:
        raise ValueError(
            f"gain has shape {tuple(gain.shape)}, {gain.dtype} on {gain.device}; expected ({S},) contiguous float32 on "
            f"{crops.device}, where the crops are"
        )
