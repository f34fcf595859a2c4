"""Device time without the host's, and the bandwidth that it is compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from clever_fast.performance.timing import summary


def graph_ms(function: Callable[[], object], calls: int, rounds: int = 11) -> dict:
    """Milliseconds of one of the `calls` in function, without the host: a CUDA graph, replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())  # which may still be writing the inputs
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # a loader's threads may call CUDA meanwhile
        function()
    return event_ms(graph.replay, calls, rounds)


def event_ms(function: Callable[[], object], calls: int, rounds: int = 11) -> dict:
    """The same between two events, with the host's launches: for what a graph cannot hold, as it asks the device."""
    times = []
    for _ in range(rounds + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / calls)
    return summary(times[2:])


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of 2 GiB."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (graph_ms(lambda: target.copy_(source), 1)["median"] * 1e-3)
