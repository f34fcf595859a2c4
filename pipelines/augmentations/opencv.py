"""OpenCV inside a CPU graph, for what DALI has no operator for or a slow one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np


def each_sample(function: Callable[..., np.ndarray], *inputs, threads: int):
    """Node of function(*samples), an HWC image, for every sample of the inputs; `threads` share the batch.

    OpenCV releases the interpreter's lock, so the threads run side by side.
    """
    from clever_fast.pipelines.dali import fn

    # not a function defined here: DALI's conversion of conditionals would rewrite and slow it
    spread = partial(_spread, function, threads)
    return fn.python_function(*inputs, function=spread, batch_processing=True, output_layouts="HWC")


def _spread(function: Callable[..., np.ndarray], threads: int, *columns: list) -> list[np.ndarray]:
    def deal(first: int) -> list[np.ndarray]:
        return [function(*row) for row in zip(*(column[first::threads] for column in columns))]

    results: list = [None] * len(columns[0])
    for first, part in enumerate(_pool(threads).map(deal, range(threads))):
        results[first::threads] = part
    return results


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="opencv")
