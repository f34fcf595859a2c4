"""Other ways to run the selective scan, to be faster than: torch's own vectorised forms, and published kernels."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from clever_fast.ops.selective_scan.doubling import output, recurrence_terms

CHUNK = 56
Scan = Callable[..., Tensor]


def by_chunked_sums(u, delta, A, B, C, D, delta_bias) -> Tensor:
    """h = e^s cumsum(e^-s input) with s the sum of log decays, in chunks; the carry goes from chunk to chunk.

    e^-s overflows where the decays of one chunk multiply to less than 1e-38; VMamba's steps are far from that.
    """
    log_decay, inputs = recurrence_terms(u, delta, A, B, delta_bias)
    L = u.shape[2]
    length = min(CHUNK, L)
    log_decay, inputs = (F.pad(t, (0, -L % length)).unflatten(-1, (-1, length)) for t in (log_decay, inputs))
    s = log_decay.cumsum(-1)
    own = s.exp() * ((-s).exp() * inputs).cumsum(-1)  # (N, K, D, S, chunks, length)
    carries = [torch.zeros_like(own[..., 0, 0])]
    for last, through in zip(own[..., :-1, -1].unbind(-1), s[..., :-1, -1].exp().unbind(-1), strict=True):
        carries.append(through * carries[-1] + last)
    h = own + s.exp() * torch.stack(carries, -1).unsqueeze(-1)
    return output(h.flatten(-2)[..., :L], u, C, D)


def published_kernels() -> tuple[dict[str, Scan], dict[str, str]]:
    """mamba-ssm's scan and VMamba's (built from its folder kernels/selective_scan), and why one of them is missing.

    Both take these layouts and dtypes: 16 or 32 bit u, delta, B and C of one dtype, float32 A, D and bias. mamba-ssm's
    output has the dtype of u; VMamba's is asked for in float32, as ours is.
    """
    found, missing = {}, {}
    for name, module, make in (
        ("mamba-ssm", "mamba_ssm.ops.selective_scan_interface", _mamba),
        ("VMamba", "selective_scan_cuda_oflex", lambda kernels: lambda *tensors: VMambaScan.apply(kernels, *tensors)),
    ):
        try:
            found[name] = make(importlib.import_module(module))
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def _mamba(module: ModuleType) -> Scan:
    return lambda u, delta, A, B, C, D, bias: module.selective_scan_fn(
        u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True
    )


class VMambaScan(torch.autograd.Function):
    """VMamba's extension module has no autograd of its own. Its `nrows` is 1 in every build."""

    @staticmethod
    def forward(ctx, module, *tensors):
        y, states = module.fwd(*tensors, True, 1, True)  # delta_softplus, nrows, float32 output
        ctx.module = module
        ctx.save_for_backward(*tensors, states)
        return y

    @staticmethod
    def backward(ctx, dy):
        *tensors, states = ctx.saved_tensors
        return None, *ctx.module.bwd(*tensors, dy.contiguous(), states, True, 1)
