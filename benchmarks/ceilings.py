"""What the machine can do at most, measured: a large matrix product and a large copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch

from clever_fast.benchmarks.gpu_timing import copy_bandwidth, graph_ms
from clever_fast.performance.timing import summary

SIDE = {"cuda": 8192, "cpu": 2048}  # of the square matrices
CPU_COPY = 2**28  # bytes: beyond any cache


@cache
def ceilings(device: str, dtype: torch.dtype) -> dict[str, float]:
    """{"product_tflops", "copy_gb_s"}, medians, measured once a process. device: cuda or cpu.

    The copy counts what is read and what is written.
    """
    side = SIDE[device]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    if device == "cuda":
        milliseconds, copied = graph_ms(lambda: a @ b, 1)["median"], copy_bandwidth()
    else:
        source = torch.ones(CPU_COPY, dtype=torch.uint8)
        target = torch.empty_like(source)
        milliseconds = cpu_ms(lambda: a @ b)
        copied = 2 * CPU_COPY / (cpu_ms(lambda: target.copy_(source)) * 1e-3)
    return {"product_tflops": 2 * side**3 / milliseconds / 1e9, "copy_gb_s": copied / 1e9}


def cpu_ms(function: Callable[[], object], rounds: int = 7) -> float:
    """Median milliseconds, after two warm-ups."""
    times = []
    for _ in range(rounds + 2):
        begin = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - begin))
    return summary(times[2:])["median"]
