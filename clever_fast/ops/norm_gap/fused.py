"""PReg in a few launches for any number of tensors: torch's multi-tensor kernels, one pass forward and one backward."""

import torch
from torch import Tensor

from clever_fast.tracing import ranged

DEVICES = ("cuda", "cpu")


def _dtype(tensors: list[Tensor]) -> torch.dtype:
    """Of the totals: at least float32."""
    return torch.promote_types(tensors[0].dtype, torch.float32)


@torch.library.custom_op("clever_fast::norm_gap", mutates_args=(), device_types=DEVICES)
def norm_gap(left: list[Tensor], right: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The gap and the totals (2,)."""
    tensors = [*left, *right]
    norms = torch.stack(torch._foreach_norm(tensors, dtype=_dtype(tensors))).square()
    totals = torch.stack([norms[: len(left)].sum(), norms[len(left) :].sum()])
    return (totals[0] - totals[1]).abs(), totals


@torch.library.custom_op("clever_fast::norm_gap_backward", mutates_args=(), device_types=DEVICES)
def backward(grad: Tensor, totals: Tensor, left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    twice = 2 * grad * (totals[0] - totals[1]).sign()
    return [*(torch._foreach_mul(left, twice) if left else ()), *(torch._foreach_mul(right, -twice) if right else ())]


@norm_gap.register_fake
def _(left, right):
    first, dtype = (left or right)[0], _dtype([*left, *right])
    return first.new_empty((), dtype=dtype), first.new_empty(2, dtype=dtype)


@backward.register_fake
def _(grad, sign, left, right):
    return [torch.empty_like(t) for t in (*left, *right)]


def _setup(ctx, inputs, output) -> None:
    left, right = inputs
    ctx.left = len(left)
    ctx.trained = [t.requires_grad for t in (*left, *right)]
    ctx.save_for_backward(output[1], *left, *right)
    ctx.set_materialize_grads(False)


@ranged("norm_gap backward")
def _differentiate(ctx, grad, _):
    totals, *tensors = ctx.saved_tensors
    sides = tensors[: ctx.left], tensors[ctx.left :]
    trained = ctx.trained[: ctx.left], ctx.trained[ctx.left :]
    if grad is None:
        return tuple([None] * len(side) for side in sides)
    chosen = [[t for t, wanted in zip(*pair, strict=True) if wanted] for pair in zip(sides, trained, strict=True)]
    gradients = iter(backward(grad, totals, *chosen))
    return tuple([next(gradients) if wanted else None for wanted in side] for side in trained)


norm_gap.register_autograd(_differentiate, setup_context=_setup)
