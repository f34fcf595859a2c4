"""A session of timing: recipes one after another, each record shown and written as it comes."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from clever_fast.benchmarks import clocks
from clever_fast.benchmarks.measure import append
from clever_fast.benchmarks.records import number
from clever_fast.errors import UserError, find
from clever_fast.options import EXECUTIONS
from clever_fast.pipelines.manifest import Manifest, open_manifest
from clever_fast.progress import rounds_bar
from clever_fast.recipes import find_recipe

SIZE = (500, 375)  # of the generated photographs: ImageNet's most frequent


def time_recipes(
    recipes: list[str],
    executions: list[str],
    which: tuple[str, ...],
    records: Path,
    *,
    data: Path | None = None,
    batch: int | None = None,
    rounds: int | None = None,
    seconds: float | None = None,
    epoch_steps: Callable[[int], int] | None = None,
) -> list[dict]:
    """Records of the clocks `which`, shown and written as they come. epoch_steps: of the steps that are an epoch."""
    for name, value in (("batch", batch), ("rounds", rounds), ("seconds", seconds)):
        if value is not None and value <= 0:
            raise UserError(f"--{name} {value} is too small: give more than 0")
    found = {name: find("execution", name, EXECUTIONS) for name in executions}
    names, rows = list(recipes), []
    for name in names:
        find_recipe(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = clocks.USUAL[device]
    alone = which == ("loader",)  # which a CPU bears as published
    batch = batch or size["loader_batch" if alone else "batch"]
    rounds, seconds = rounds or size["rounds"], seconds or size["seconds"]
    if device == "cpu" and not alone:
        print("No GPU: timed on the CPU, at small sizes. What is fast here need not be fast on a GPU.", flush=True)
    laps = rounds * len(names) * sum(len(found) if clock == "step" else 1 for clock in which)
    needs_images = set(which) != {"step"}
    with images(data, batch) if needs_images else nullcontext() as manifest, rounds_bar(laps) as (advance, say):
        steps = epoch_steps(len(manifest) // batch) if epoch_steps else None
        for name in names:
            recipe, origin = (
                clocks.sized(name, device, batch, whole=alone),
                "a folder" if data else "generated photographs",
            )
            timing = {"rounds": min(rounds, steps or rounds), "seconds": seconds, "steps": steps, "advance": advance}
            try:
                for record in clocks.measure(name, recipe, found, which, manifest, origin, **timing):
                    append(records / f"{record['benchmark']}.jsonl", record)
                    rows.append(record)
                    say(line(record))
            except torch.OutOfMemoryError:
                say(f"{name}: no record, {batch} images do not fit into memory; give a smaller --batch")
            forget()
    if not rows:
        raise UserError(f"nothing was measured: --batch {batch} does not fit into memory")
    print(f"records: {records}; `clever-fast bench report --records {records}` draws them")
    return rows


def forget() -> None:
    """Gives back what a recipe held, once nothing names it: its memory, and dynamo's few places for compiled code."""
    torch.compiler.reset()
    gc.collect()  # compiled networks and pipelines are held by cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def images(data: Path | None, batch: int) -> Iterator[Manifest]:
    """Those of a folder, or photographs that are drawn for the time being."""
    if data:
        yield open_manifest(data, progress=True)
        return
    from clever_fast.benchmarks.photographs import write_jpegs

    with tempfile.TemporaryDirectory() as folder:
        count = max(32, 2 * batch)
        print(f"drawing {count} photographs of {SIZE[0]} x {SIZE[1]} px", flush=True)
        write_jpegs(Path(folder) / "photographs", count, SIZE)
        yield open_manifest(Path(folder))


def line(r: dict) -> str:
    """What a record found, on one line."""
    parts = [f"{spread(r['images_per_second'])} images/s"]
    if "tflops" in r:
        parts.append(f"{number(r['tflops'])} TFLOP/s, {r['share_of_peak']:.1%} of a large product")
    if r["benchmark"] == "epoch":
        parts.append(f"waiting for data {r['data_wait']:.0%}")
    if r["benchmark"] == "loader":
        parts.append(f"{r['cpu_ms_per_image']:.1f} ms of CPU time an image")
    if "peak_mib" in r:
        parts.append(f"{r['peak_mib']:,.0f} MiB")
    if "joules_per_image" in r:
        parts.append(f"{r['joules_per_image']['median']:.2f} J an image")
    what = r["policy"] if r["benchmark"] == "loader" else f"{r['recipe']}, {r['execution']}"
    return f"{r['benchmark']:6}  {what}, {r['batch']} x ({r['crops']}): {', '.join(parts)}"


def spread(rate: dict[str, float]) -> str:
    return f"{number(rate['median'])} ({number(rate['low'])} to {number(rate['high'])})"
