"""VMamba's two-dimensional selective scan, from the features of an image to the sum of four scans over it."""

from torch import Tensor

from clever_fast.ops import extension
from clever_fast.ops.cross_scan import fused, reference
from clever_fast.ops.selective_scan import check_states, check_tensors
from clever_fast.tracing import ranged


@ranged("cross_scan")
def cross_scan(x: Tensor, x_proj_weight: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """Scans an image in four directions, k = row by row, column by column, and both backwards, and adds the outputs.

    (low_k, B_k, C_k) = x_proj_weight_k x;  delta_k = dt_weight_k low_k;
    y = sum over k of selective_scan(x, delta_k, A_k, B_k, C_k, D_k, delta_bias_k), each along its own order.

    The kernels read x by index in each direction and expand delta where they use it: no sequence is copied, and
    delta is rounded to float32 only.

    Args:
        x: (N, H, W, D) features, channels innermost; float32, float16 or bfloat16.
        x_proj_weight: (4, R + 2*S, D) float32.
        dt_weight: (4, D, R) float32.
        A: (4*D, S) float32 decay rates, below 0.
        D: (4*D,) float32 weights of the input in the output.
        delta_bias: (4*D,) float32.

    Returns:
        (N, H, W, D) float32. All six tensors receive gradients, in their own dtypes; equal inputs give equal bits.
        float64 runs the reference, on a CPU.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, a size is 0, S is above 16 or R above 128.

    Source: VMamba (Liu et al. 2024), SS2D, and its released code.
    """
    check(x, x_proj_weight, dt_weight, A, D, delta_bias)
    form = fused if extension.takes_kernel("cross_scan", x) else reference
    return form.cross_scan(x, x_proj_weight, dt_weight, A, D, delta_bias)


def check(x: Tensor, x_proj_weight: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor) -> None:
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (N, H, W, D), all at least 1")
    channels = x.shape[3]
    for name, tensor, wanted in (("A", A, "(4*D, S)"), ("dt_weight", dt_weight, "(4, D, R)")):
        if tensor.ndim != wanted.count(",") + 1 or 0 in tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {wanted} with D = {channels}")
    S, R = A.shape[-1], dt_weight.shape[-1]
    check_states(S)
    if R > extension.MAX_RANK:
        raise ValueError(f"dt_weight has shape {tuple(dt_weight.shape)}; expected R of at most {extension.MAX_RANK}")
    sizes = {
        "x_proj_weight": (4, R + 2 * S, channels),
        "dt_weight": (4, channels, R),
        "A": (4 * channels, S),
        "D": (4 * channels,),
        "delta_bias": (4 * channels,),
    }
    weights = {"x_proj_weight": x_proj_weight, "dt_weight": dt_weight, "A": A, "D": D, "delta_bias": delta_bias}
    check_tensors({"x": x}, weights, sizes)
