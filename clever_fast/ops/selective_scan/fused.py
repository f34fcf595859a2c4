"""The selective scan's kernels as a differentiable operator of torch."""

import torch
from torch import Tensor

from clever_fast.ops import extension
from clever_fast.tracing import ranged


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, *, delta_softplus: bool
) -> Tensor:
    u, delta, A, B, C, D, bias = (x.contiguous() for x in (u, delta, A.t(), B, C, D, delta_bias))
    y, _states = torch.ops.clever_fast.selective_scan(
        u, delta, A, B, C, D, bias, delta_softplus, segment_length(u.shape[2], u.device)
    )
    return y


def segment_length(L: int, device: torch.device) -> int:
    """Positions between two states that are kept for the backward pass.

    CUDA: eight for each warp of a block, at most 56; of several lengths the one that leaves the fewest positions of the
    last segment idle. CPU: whole vectors of 16, at most 64.
    """
    if device.type != "cuda":
        return min(64, -(-L // 16) * 16)
    if L <= 56:
        return -(-L // 8) * 8
    return min(range(56, 24, -8), key=lambda length: -(-L // length) * length)


def channel_splits(D: int, device: torch.device) -> int:
    """Into how many shares the channels' sums are split; each CUDA block has one. Of shapes alone, so that it is
    the same on every machine: 4 or 3 if that gives equal shares of the blocks of 32 channels, twice as many from 512
    channels on, where a weight's partial sums weigh more than those of the positions."""
    if device.type != "cuda":
        return 1
    tiles, many = -(-D // 32), 2 if D >= 512 else 1
    return next((many * n for n in (4, 3) if tiles % (many * n) == 0), min(4, tiles))


def _fake(u, delta, A, B, C, D, delta_bias, delta_softplus, segment):
    (N, KD, L), S = u.shape, A.shape[0]
    return u.new_empty(N, KD, L, dtype=torch.float32), u.new_empty(N, -(-L // segment), S, KD, dtype=torch.float32)


def _fake_backward(dy, u, delta, A, B, C, D, delta_bias, states, delta_softplus, segment, splits):
    partial = [u.new_empty(size, dtype=torch.float32) for size in ((len(u), *A.shape), *[(splits, *B.shape)] * 2)]
    per_channel = [u.new_empty(u.shape[:2], dtype=torch.float32) for _ in range(2)]
    return torch.empty_like(u), torch.empty_like(u), *partial, *per_channel


def _keep(ctx, inputs, output):
    *tensors, ctx.delta_softplus, ctx.segment = inputs
    ctx.save_for_backward(*tensors, output[1])


@ranged("selective_scan backward")
def _backward(ctx, dy, _dstates):
    u, delta, A, B, C, D, bias, states = ctx.saved_tensors
    splits = channel_splits(u.shape[1] // B.shape[1], u.device)
    du, ddelta, dA, dB, dC, dD, dbias = torch.ops.clever_fast.selective_scan_backward(
        dy.contiguous(), u, delta, A, B, C, D, bias, states, ctx.delta_softplus, ctx.segment, splits
    )
    return du, ddelta, dA.sum(0), dB.sum(0).to(B.dtype), dC.sum(0).to(C.dtype), dD.sum(0), dbias.sum(0), None, None


if not extension.missing:
    torch.library.register_fake("clever_fast::selective_scan", _fake)
    torch.library.register_fake("clever_fast::selective_scan_backward", _fake_backward)
    torch.library.register_autograd("clever_fast::selective_scan", _backward, setup_context=_keep)
