"""A training step that is timed: on noise, or on what a loader delivers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

import torch

from clever_fast.accelerator import Accelerator
from clever_fast.methods import Batch, Progress
from clever_fast.monitoring.metrics import Clock
from clever_fast.options import Recipe
from clever_fast.performance.energy import energy_meter
from clever_fast.train_state import TrainState

WARM_UP = 2  # steps, compilation included


class Lap(NamedTuple):
    """One round of a clock."""

    images: int
    seconds: float
    waited: float = 0.0  # seconds, for data
    cpu_seconds: float = 0.0  # of all threads
    joules: float | None = None


class Stepper:
    """A method in training on one machine, past its warm-up and compilation."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator):
        self.recipe, self.accelerator, self.done = recipe, accelerator, 1000  # past the epoch of frozen layers
        on_gpu = accelerator.device.type == "cuda"
        before = torch.cuda.memory_allocated() if on_gpu else 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self.state = TrainState(recipe, accelerator)
        self.noise, self.joules = repeat(noise(recipe, accelerator)), energy_meter(accelerator.device)
        self.warm_up = self.lap(self.noise, WARM_UP).seconds
        self.peak_mib = (torch.cuda.max_memory_allocated() - before) / 2**20 if on_gpu else None

    def lap(self, batches: Iterator[Batch], steps: int) -> Lap:
        """So many steps; the host waits for the device at both ends only."""
        synchronize(self.accelerator.device)
        joules, used, clock = (
            self.joules() if self.joules else None,
            time.process_time(),
            Clock(self.accelerator.device),
        )
        for _ in range(steps):
            batch = clock.waiting(next, batches)
            progress = Progress(self.done, 100_000, 500)
            self.state.step(batch, progress)
            self.done += 1
        synchronize(self.accelerator.device)
        seconds, used = clock.seconds, time.process_time() - used
        spent = None if joules is None else self.joules() - joules
        return Lap(steps * self.recipe.batch_size, seconds, clock.waited, used, spent)


def noise(recipe: Recipe, accelerator: Accelerator) -> Batch:
    """A batch of the recipe's shapes, as the loader would hand it over."""
    N, dtype = recipe.batch_size, getattr(torch, accelerator.input_dtype)
    sizes = [(2 * N, recipe.global_size), (recipe.local_crops * N, recipe.local_size)]
    crops = [torch.randn(rows, 3, size, size, device=accelerator.device, dtype=dtype) for rows, size in sizes if rows]
    crops = [x.contiguous(memory_format=torch.channels_last) for x in crops]
    return Batch(crops[0], crops[1] if len(crops) > 1 else None, torch.zeros(N, dtype=torch.int64))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(values: list[float]) -> dict[str, float]:
    """Median and extremes of alternating rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "rounds": len(values)}
