"""Other ways to run the selective scan, to be faster than: torch's own vectorised forms, and published kernels."""

from __future__ import annotations

import importlib
from collections.abc import Callable

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


def published_kernels() -> dict[str, Scan]:
    """mamba-ssm's and VMamba's scans, where they are installed (VMamba's: classification/models on PYTHONPATH)."""
    found = {}
    for name, module, function in (
        ("mamba-ssm", "mamba_ssm.ops.selective_scan_interface", "selective_scan_fn"),
        ("VMamba", "csms6s", "selective_scan_fn"),
    ):
        try:
            call = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError):
            continue
        found[name] = lambda u, delta, A, B, C, D, bias, call=call: call(
            u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True
        )
    return found
