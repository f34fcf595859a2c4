"""The recurrence of Mamba: a linear state-space model whose step, input and output depend on the position."""

import torch
from torch import Tensor

from clever_fast.ops import extension
from clever_fast.ops.selective_scan import fused, reference
from clever_fast.tracing import ranged


@ranged("selective_scan")
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    *,
    delta_softplus: bool = True,
) -> Tensor:
    """Runs S states for each of K groups of D channels along L positions.

    t_l = softplus(delta_l + delta_bias), linear above 20;  h_l = exp(t_l A) h_(l-1) + t_l B_l u_l, h_0 = 0;
    y_l = <C_l, h_l> + D u_l.

    Args:
        u: (N, K*D, L) input; float32, float16 or bfloat16.
        delta: (N, K*D, L) steps before bias and softplus; the dtype of u.
        A: (K*D, S) decay rates, below 0; float32.
        B: (N, K, S, L) input matrices, one for each group; the dtype of u.
        C: (N, K, S, L) output matrices, one for each group; the dtype of u.
        D: (K*D,) float32 weights of the input in the output.
        delta_bias: (K*D,) float32.
        delta_softplus: without it, t_l = delta_l + delta_bias.

    Returns:
        (N, K*D, L) float32; states are float32 too. All seven tensors receive gradients, in their own dtypes. The
        kernels add in a fixed order, so equal inputs give equal bits. float64 runs the reference, on a CPU.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, a size is 0, or S is above 16.

    Source: Mamba (Gu and Dao 2023), algorithm 2; VMamba (Liu et al. 2024).
    """
    check(u, delta, A, B, C, D, delta_bias)
    form = fused if extension.takes_kernel("selective_scan", u) else reference
    return form.selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus=delta_softplus)


def check(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> None:
    if u.ndim != 3 or 0 in u.shape:
        raise ValueError(f"u has shape {tuple(u.shape)}; expected (N, K*D, L), all at least 1")
    if B.ndim != 4 or 0 in B.shape or u.shape[1] % B.shape[1]:
        raise ValueError(
            f"B has shape {tuple(B.shape)}; expected (N, K, S, L), all at least 1, with K dividing the "
            f"{u.shape[1]} channels of u"
        )
    (N, KD, L), (_, K, S, _) = u.shape, B.shape
    check_states(S)
    sizes = {"A": (KD, S), "B": (N, K, S, L), "C": (N, K, S, L), "D": (KD,), "delta_bias": (KD,), "delta": (N, KD, L)}
    check_tensors({"u": u, "delta": delta, "B": B, "C": C}, {"A": A, "D": D, "delta_bias": delta_bias}, sizes)


def check_states(S: int) -> None:
    if S > extension.MAX_STATES:
        raise ValueError(f"S is {S}; expected at most {extension.MAX_STATES} states")


def check_tensors(inputs: dict[str, Tensor], weights: dict[str, Tensor], sizes: dict[str, tuple[int, ...]]) -> None:
    """The inputs share the first one's dtype, the weights are float32 (float64 with it), and all are on its device."""
    first, x = next(iter(inputs.items()))
    known = (torch.float32, torch.float16, torch.bfloat16) + ((torch.float64,) if x.device.type != "cuda" else ())
    if x.dtype not in known:
        raise ValueError(f"{first} {tuple(x.shape)} is {x.dtype}; expected float32, float16 or bfloat16")
    exact = torch.promote_types(x.dtype, torch.float32)
    for name, tensor in (inputs | weights).items():
        shape, expected = tuple(tensor.shape), sizes.get(name)
        if expected and shape != expected:
            raise ValueError(f"{name} has shape {shape}; expected {expected}")
        dtype = x.dtype if name in inputs else exact
        if tensor.dtype != dtype:
            raise ValueError(f"{name} {shape} is {tensor.dtype}; expected {dtype}, as {first} is {x.dtype}")
        if tensor.device != x.device:
            raise ValueError(f"{name} {shape} is on {tensor.device}; expected {x.device}, where {first} is")
