"""VMamba's scan of an image as one differentiable operator: no sequence is copied, no full-rank delta is stored."""

import torch
from torch import Tensor
from torch.nn import functional as F

from clever_fast.ops import extension
from clever_fast.ops.selective_scan.fused import channel_splits, segment_length
from clever_fast.tracing import ranged


def cross_scan(x: Tensor, x_proj_weight: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    # A projection does not know the order of positions, so one product serves all four directions.
    low = F.linear(x, x_proj_weight.flatten(0, 1).to(x.dtype)).unflatten(-1, x_proj_weight.shape[:2])
    weight, A = dt_weight.transpose(1, 2), A.unflatten(0, (4, -1)).transpose(1, 2)  # (4, R, D), (4, S, D)
    D, delta_bias = (v.unflatten(0, (4, -1)) for v in (D, delta_bias))
    tensors = (t.contiguous() for t in (x, low.to(x.dtype), weight, A, D, delta_bias))
    y, _states = torch.ops.clever_fast.cross_scan(*tensors, segment_length(x.shape[1] * x.shape[2], x.device))
    return y


def image_groups(N: int, D: int, device: torch.device) -> int:
    """Into how many shares the images' sums (of the weights' gradients) are split; of shapes alone.

    On CUDA that makes 768 or 1,024 blocks with `channel_splits`, which fill the multiprocessors of an A100 and of an
    H200 at least 89 % of the time, two or three blocks on each.
    """
    return min(N, (256 if D < 512 else 128) if device.type == "cuda" else 32)


def _fake(x, low, weight, A, D, delta_bias, segment):
    N, H, W, _ = x.shape
    states = (N, 4, -(-H * W // segment), *A.shape[1:])
    return x.new_empty(x.shape, dtype=torch.float32), x.new_empty(states, dtype=torch.float32)


def _fake_backward(dy, x, low, weight, A, D, delta_bias, states, segment, splits, groups):
    sizes = [x.shape, (splits, *low.shape), *((groups, *t.shape) for t in (weight, A, D, delta_bias))]
    return tuple(x.new_empty(size, dtype=torch.float32) for size in sizes)


def _keep(ctx, inputs, output):
    *tensors, ctx.segment = inputs
    ctx.save_for_backward(*tensors, output[1])


@ranged("cross_scan backward")
def _backward(ctx, dy, _dstates):
    x, low, weight, A, D, bias, states = ctx.saved_tensors
    splits, groups = channel_splits(x.shape[3], x.device), image_groups(len(x), x.shape[3], x.device)
    dx, *partial = torch.ops.clever_fast.cross_scan_backward(
        dy.contiguous(), x, low, weight, A, D, bias, states, ctx.segment, splits, groups
    )
    dlow, *dweights = (t.sum(0) for t in partial)
    return dx.to(x.dtype), dlow.to(low.dtype), *dweights, None


if not extension.missing:
    torch.library.register_fake("clever_fast::cross_scan", _fake)
    torch.library.register_fake("clever_fast::cross_scan_backward", _fake_backward)
    torch.library.register_autograd("clever_fast::cross_scan", _backward, setup_context=_keep)
