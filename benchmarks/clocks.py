"""Three clocks of one training, in alternating rounds: the loader alone, the step on a fixed batch, and both together.

loader   batches are taken and thrown away
step     teacher, student, losses, backward, clip, optimizer and teacher's average on noise that lies on the device
epoch    the step fed by the loader, as a run does it
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import numpy as np
import torch

from clever_fast.accelerator import Accelerator
from clever_fast.benchmarks.ceilings import ceilings
from clever_fast.command_line import flatten
from clever_fast.data import PretrainingBatches
from clever_fast.environment import conditions
from clever_fast.methods import Batch
from clever_fast.options import Execution, Recipe
from clever_fast.performance import profiling
from clever_fast.performance.flops import gflop_per_image
from clever_fast.performance.timing import Lap, Stepper, summary, synchronize
from clever_fast.pipelines.manifest import Manifest
from clever_fast.recipes import RECIPES

CLOCKS = ("loader", "step", "epoch")
USUAL = {  # of a batch in images, of repetitions, and about the seconds of each
    "cuda": {"batch": 128, "rounds": 5, "seconds": 4.0, "loader_batch": 128},
    "cpu": {"batch": 2, "rounds": 3, "seconds": 0.5, "loader_batch": 16},
}
SMALL = {"global_size": 64, "local_size": 32, "local_crops": 2}  # on a CPU, of the recipes of large images
SMALL_HEADS = {"prototypes": 4096, "hidden": 512}  # whose optimizer would else be most of so small a step


def take(batches: Iterator[Batch], count: int, accelerator: Accelerator) -> Lap:
    """So many batches of the loader, beyond those that it had ready."""
    images = 0
    empty(batches, accelerator)
    synchronize(accelerator.device)
    begin, used = time.perf_counter(), time.process_time()
    for _ in range(count):
        images += next(batches).size
    synchronize(accelerator.device)
    seconds = time.perf_counter() - begin
    return Lap(images, seconds, seconds, time.process_time() - used)


def empty(batches: Iterator[Batch], accelerator: Accelerator) -> None:
    """Throws away what the loader had ready."""
    for _ in range(accelerator.execution.prefetch + 1):
        next(batches)


def feed(stepper: Stepper, batches: Iterator[Batch], steps: int) -> Lap:
    """So many steps on the loader's batches; one more comes before them, so that the queue is as full as in a run."""
    empty(batches, stepper.accelerator)
    stepper.lap(batches, 1)
    return stepper.lap(batches, steps)


def sized(name: str, device: str, batch: int, *, whole: bool = False) -> Recipe:
    """The recipe of this name at what one device bears: small crops and heads on a CPU, unless `whole`."""
    recipe = replace(RECIPES[name], batch_size=batch)
    if whole or device == "cuda" or recipe.global_size <= SMALL["global_size"]:
        return recipe
    return replace(recipe, **SMALL, method=replace(recipe.method, **SMALL_HEADS))


def measure(
    name: str,
    recipe: Recipe,
    executions: dict[str, Execution],
    clocks: tuple[str, ...],
    manifest: Manifest | None = None,
    origin: str = "",
    *,
    rounds: int,
    seconds: float,
    steps: int | None = None,
    advance: Callable[[str], None] = lambda what: None,
) -> Iterator[dict]:
    """Time a recipe; yields a record for each clock and execution, the loader's and the epoch's for the first one only.

    Args:
        name: of the recipe that `recipe` is a size of.
        executions: by name; their steps alternate.
        manifest: the images, where a clock needs them.
        origin: theirs, for the record.
        rounds: laps of each clock.
        seconds: about the length of a lap.
        steps: of all laps of the epoch together, in place of `seconds`.
        advance: called after each lap with what was timed.
    """
    machines = {key: Accelerator.from_execution(execution) for key, execution in executions.items()}
    first, accelerator = next(iter(machines.items()))
    loading, stepping = set(clocks) & {"loader", "epoch"}, set(clocks) & {"step", "epoch"}
    batches = PretrainingBatches(manifest, recipe, accelerator) if loading else None
    stream, steppers = iter(batches or ()), {}
    if stepping:
        steppers = {key: Stepper(recipe, machines[key]) for key in (executions if "step" in clocks else [first])}
    laps: dict[tuple[str, str], Callable[[int], Lap]] = {}
    if "loader" in clocks:
        laps["loader", first] = lambda count: take(stream, count, accelerator)
    if "step" in clocks:
        laps |= {("step", key): lambda count, s=stepper: s.lap(s.noise, count) for key, stepper in steppers.items()}
    if "epoch" in clocks:
        laps["epoch", first] = lambda count: feed(steppers[first], stream, count)
    counts = {("epoch", first): math.ceil(steps / rounds)} if steps else {}
    for key in laps.keys() - counts.keys():  # one short lap says how many fill a round
        counts[key] = max(1, round(seconds / laps[key](1).seconds))
    found: dict[tuple[str, str], list[Lap]] = {key: [] for key in laps}
    for _ in range(rounds):
        for key, lap in laps.items():
            settle()
            found[key].append(lap(counts[key]))
            advance(f"{name}, {key[1]}: {key[0]}")
    for (clock, key), rows in found.items():
        record = {"benchmark": clock, **describe(name, recipe, key, executions[key], machines[key]), **rates(rows)}
        if clock != "loader":
            record |= share_of_peak(record, steppers[key])
            fed = stream if clock == "epoch" else steppers[key].noise
            steps = min(10, counts[clock, key])
            record["phases_ms"] = profiling.split(profiling.timed(steppers[key], fed, steps), steps)
        if clock != "step":
            width, height = np.median(manifest.sizes, axis=0).astype(int).tolist()
            record["data"] = {"images": len(manifest), "size": f"{width}x{height}", "origin": origin}
        yield record | conditions()
    if batches:
        batches.close()


def describe(name: str, recipe: Recipe, key: str, execution: Execution, accelerator: Accelerator) -> dict:
    """What was timed, on what."""
    base, ours = dict(flatten(RECIPES[name].as_dict())), dict(flatten(recipe.as_dict()))
    on_gpu = accelerator.device.type == "cuda"
    return {
        "recipe": name,
        "method": recipe.method.name,
        "backbone": recipe.backbone.name,
        "changes": {field: value for field, value in ours.items() if value != base[field]},
        "execution": key,
        "settings": asdict(execution),
        "device": torch.cuda.get_device_name(accelerator.device) if on_gpu else "cpu",
        "precision": str(accelerator.precision).removeprefix("torch."),
        "threads": accelerator.execution.threads,
        "policy": recipe.policy.name,
        "crops": f"2x{recipe.global_size} + {recipe.local_crops}x{recipe.local_size}",
        "batch": recipe.batch_size,
    }


def rates(laps: list[Lap]) -> dict:
    """Medians and extremes of the laps."""
    total = sum(lap.seconds for lap in laps)
    images = sum(lap.images for lap in laps)
    record = {
        "images_per_second": summary([lap.images / lap.seconds for lap in laps]),
        "images": images,
        "data_wait": sum(lap.waited for lap in laps) / total,
        "cpu_ms_per_image": 1000 * sum(lap.cpu_seconds for lap in laps) / images,
    }
    if all(lap.joules is not None for lap in laps):
        record["joules_per_image"] = summary([lap.joules / lap.images for lap in laps])
    return record


def share_of_peak(record: dict, stepper: Stepper) -> dict:
    """What the step computes against what the machine can: heads and teacher included, counted by `cost`."""
    peak = ceilings(stepper.accelerator.device.type, stepper.accelerator.precision)
    gflop = gflop_per_image(stepper.recipe)
    tflops = record["images_per_second"]["median"] * gflop / 1e3
    memory = {} if stepper.peak_mib is None else {"peak_mib": stepper.peak_mib}
    return {
        "gflop_per_image": gflop,
        "tflops": tflops,
        "share_of_peak": tflops / peak["product_tflops"],
        "ceilings": peak,
        "warm_up_s": stepper.warm_up,
        **memory,
    }


def settle() -> None:
    """Waits until the loader's threads have filled their queue and rest, so that they do not disturb another clock."""
    used = -1.0
    while time.process_time() - used > 0.01:
        used = time.process_time()
        time.sleep(0.1)
