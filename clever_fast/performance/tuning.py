"""The loader's settings that are fastest on this machine, found by trying them, and the file that keeps them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from clever_fast.accelerator import Accelerator
from clever_fast.data import PretrainingBatches
from clever_fast.environment import conditions
from clever_fast.errors import UserError
from clever_fast.methods import Batch
from clever_fast.options import Execution, Recipe
from clever_fast.performance.timing import summary
from clever_fast.pipelines.manifest import Manifest

ROUNDS = 5
GAIN = 1.03  # of the medians, below which what was chosen before stays


class Trial(NamedTuple):
    """One field at one value, and images per second of the loader alone: median, low, high, rounds."""

    field: str
    value: Any
    rate: dict[str, float]
    chosen: bool


def candidates() -> dict[str, list[Any]]:
    """What is tried of each field of `Execution`, in the order of their weight; the rest stays as it is."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cores = max(1, len(os.sched_getaffinity(0)) // max(1, gpus))
    tried: dict[str, list[Any]] = {
        "threads": sorted({max(1, cores // 4), max(1, cores // 2), cores, cores + cores // 2}),
        "prefetch": [1, 2, 4],
    }
    if gpus:
        tried["hw_decoder_load"] = [0.0, 0.4, 0.65, 0.8, 1.0]
        tried |= {"preallocate": [False, True], "affinity": [False, True]}
    return tried


def sweep(
    manifest: Manifest,
    recipe: Recipe,
    execution: Execution,
    tried: dict[str, list[Any]],
    *,
    seconds: float,
    advance: Callable[[str], None] = lambda what: None,
) -> Iterator[list[Trial]]:
    """One field after another, each from the best of those before; yields the trials of each.

    Args:
        seconds: about the length of a round; the rounds of a field's values alternate.
        advance: called after each round with what was timed.
    """
    for field, values in tried.items():
        usual = (
            Accelerator.from_execution(execution).execution.threads if field == "threads" else getattr(execution, field)
        )
        values = sorted({*values, usual})
        executions = [replace(execution, **{field: value}) for value in values]
        loaders = [PretrainingBatches(manifest, recipe, Accelerator.from_execution(made)) for made in executions]
        rates: list[list[float]] = [[] for _ in values]
        for _ in range(ROUNDS):
            for loader, made, found in zip(loaders, executions, rates, strict=True):
                found.append(images_per_second(iter(loader), made.prefetch, seconds))
                advance(f"the loader with {field} {getattr(made, field)}")
        for loader in loaders:
            loader.close()
        found = {value: summary(rate) for value, rate in zip(values, rates, strict=True)}
        best = choose(found, usual)
        execution = replace(execution, **{field: best})
        yield [Trial(field, value, rate, value == best) for value, rate in found.items()]


def choose(rates: dict[Any, dict[str, float]], usual: Any) -> Any:
    """The value of the highest median; the usual one unless that is clearly faster: by 3 % and in its slowest round."""
    best = max(rates, key=lambda value: rates[value]["median"])
    now = rates[usual]["median"]
    return best if rates[best]["median"] > GAIN * now and rates[best]["low"] > now else usual


def images_per_second(batches: Iterator[Batch], ready: int, seconds: float) -> float:
    """Of a loader alone, beyond the batches that it has ready; at least two batches long."""
    for _ in range(ready + 1):
        next(batches)
    begin, images, count = time.perf_counter(), 0, 0
    while count < 2 or time.perf_counter() - begin < seconds:
        images, count = images + next(batches).size, count + 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (time.perf_counter() - begin)


def save(path: Path, chosen: dict[str, Any], recipe: str) -> None:
    """Write the settings as the file that `clever-fast pretrain --config FILE` takes.

    Raises:
        UserError: the file cannot be written.
    """
    found = conditions()
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else found["cpu"]
    head = (
        f"# The loader's fastest settings on {hardware}, {found['cores']} cores, for {recipe}'s crops.\n"
        f"# By `clever-fast doctor --tune`, {found['date']}, commit {found['commit'] or 'unknown'}; "
        f"for `clever-fast pretrain --config {path} ...`\n"
    )
    try:
        path.write_text(head + yaml.safe_dump({"execution": chosen}))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --save") from None
