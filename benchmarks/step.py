"""Images per second of a training step on a fixed batch: the executions by name, side by side.

    python -m clever_fast.benchmarks.step                                 # on a GPU every backbone, on a CPU small ones
    python -m clever_fast.benchmarks.step --recipes clever_vits16_in100 --batch 128

Rounds of the executions alternate. No data is loaded: crops are noise that lies on the device.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import torch

from clever_fast.acceleration import Accelerator, accelerator
from clever_fast.benchmarks.measure import DOCS, append, conditions, summary, write_section
from clever_fast.cost import gflop_per_image
from clever_fast.methods import Batch, Progress
from clever_fast.metrics import Clock, peak_memory_mib
from clever_fast.optimization import FailureGuard
from clever_fast.recipe import EXECUTIONS, Recipe
from clever_fast.recipes import RECIPES
from clever_fast.train import build, train_step

RESULTS = Path(__file__).parent / "results" / "step.jsonl"
ON_GPU = [name for name in RECIPES if name.startswith("clever_") and name.endswith("_in100")]
ON_CPU = ["clever_resnet10_cifar10", "clever_resnet18_cifar10", "clever_vitt16_in100"]
SMALL = {"global_size": 64, "local_size": 32, "local_crops": 4}  # of the recipes of large images, on a CPU


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=None, metavar="NAME")
    parser.add_argument("--executions", nargs="+", choices=EXECUTIONS, default=list(EXECUTIONS))
    parser.add_argument("--batch", type=int, default=None, help="images; 128 on a GPU, 8 on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="at least, of each round of an execution")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that records are added to")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    batch = options.batch or (128 if on_gpu else 8)
    for name in options.recipes or (ON_GPU if on_gpu else ON_CPU):
        recipe = replace(RECIPES[name], batch_size=batch)
        if not on_gpu and recipe.global_size > 64:
            recipe = replace(recipe, **SMALL)
        record = {"benchmark": "step", "recipe": name, **compare(recipe, options), **conditions()}
        print(line(record))
        append(options.results, record)
    if options.results == RESULTS:
        records = [json.loads(text) for text in RESULTS.read_text().splitlines()]
        write_section(DOCS / "speed.md", "step", table(records))


def compare(recipe: Recipe, options: argparse.Namespace) -> dict:
    """Images per second and peak memory of every execution, in alternating rounds on the same crops."""
    steppers = {name: Stepper(recipe, accelerator(EXECUTIONS[name])) for name in options.executions}
    rates: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(options.rounds):
        for name, stepper in steppers.items():
            rates[name].append(stepper.images_per_second(options.seconds))
    machine = next(iter(steppers.values())).machine
    return {
        "device": str(machine),
        "crops": f"2x{recipe.global_size} + {recipe.local_crops}x{recipe.local_size}",
        "batch": recipe.batch_size,
        "gflop_per_image": gflop_per_image(recipe),
        "images_per_second": {name: summary(values) for name, values in rates.items()},
        "peak_mib": {name: stepper.peak_mib for name, stepper in steppers.items()},
    }


class Stepper:
    """A method in training on one batch of noise, past its warm-up."""

    def __init__(self, recipe: Recipe, machine: Accelerator):
        self.recipe, self.machine, self.step = recipe, machine, 1000  # past the epoch of frozen layers
        self.trained = build(recipe, machine)
        overflow = self.trained.scaler.is_enabled()
        self.guard = FailureGuard(self.trained.method, machine.device, overflow_is_normal=overflow)
        self.noise = repeat(noise(recipe, machine))
        if machine.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.lap(self.noise, 3)
        self.wait()
        self.peak_mib = peak_memory_mib(machine.device)

    def lap(self, batches: Iterator[Batch], steps: int = 1) -> None:
        clock = Clock(self.machine.device)
        for _ in range(steps):
            batch, progress = clock.waiting(next, batches), Progress(self.step, 100_000, 500)
            train_step(self.trained.method, self.trained, self.guard, batch, progress, self.recipe, self.machine)
            self.step += 1

    def wait(self) -> None:
        if self.machine.device.type == "cuda":
            torch.cuda.synchronize()

    def images_per_second(self, seconds: float) -> float:
        self.lap(self.noise)
        self.wait()
        begin, steps = time.perf_counter(), 0
        while steps < 3 or time.perf_counter() - begin < seconds:
            self.lap(self.noise)
            steps += 1
            self.wait()
        return steps * self.recipe.batch_size / (time.perf_counter() - begin)


def noise(recipe: Recipe, machine: Accelerator) -> Batch:
    """A batch of the recipe's shapes, as the loader would hand it over."""
    N, dtype = recipe.batch_size, getattr(torch, machine.input_dtype)
    sizes = [(2 * N, recipe.global_size), (recipe.local_crops * N, recipe.local_size)]
    crops = [torch.randn(rows, 3, size, size, device=machine.device, dtype=dtype) for rows, size in sizes if rows]
    crops = [x.contiguous(memory_format=torch.channels_last) for x in crops]
    return Batch(crops[0], crops[1] if len(crops) > 1 else None, torch.zeros(N, dtype=torch.int64))


def line(record: dict) -> str:
    rates = record["images_per_second"]
    text = ", ".join(f"{name} {r['median']:.1f} ({r['low']:.1f} to {r['high']:.1f})" for name, r in rates.items())
    ratio = f", fast / plain {rates['fast']['median'] / rates['plain']['median']:.2f}" if len(rates) > 1 else ""
    return f"{record['recipe']}, batch {record['batch']}, {record['crops']}: images/s {text}{ratio}"


def table(records: list[dict]) -> str:
    """The newest record of each recipe and device."""
    newest = {(r["recipe"], r["device"], r["batch"]): r for r in records}
    lines = [
        "| recipe | device | crops | batch | plain, images/s | fast, images/s | fast / plain | TFLOP/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in newest.values():
        rates = {name: rate["median"] for name, rate in r["images_per_second"].items()}
        fast, plain = rates.get("fast", 0.0), rates.get("plain", 0.0)
        ratio = f"**{fast / plain:.2f}**" if fast and plain else ""
        cells = [r["recipe"], r["device"], r["crops"], r["batch"], f"{plain:.1f}", f"{fast:.1f}", ratio]
        lines.append(f"| {' | '.join(map(str, cells))} | {fast * r['gflop_per_image'] / 1e3:.2f} |")
    last = records[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items() if "torch" in name)
    return "\n".join(lines) + (
        f"\n\nMedians of alternating rounds; {last['cores']} cores of an {last['cpu']}, {last['date']}, commit "
        f"{last['commit']}; {versions}.\n"
    )


if __name__ == "__main__":
    main()
