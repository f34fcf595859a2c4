"""What clever_fast chooses by itself on a CPU, against the other choices: threads that wait, precision, memory format.

    python -m clever_fast.benchmarks.checks.cpu_choices

Each choice trains on noise in a process of its own (two processes for the rows of a shared machine), in alternating
rounds. The record goes to benchmarks/results/cpu_choices.jsonl and the table of docs/speed.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.environment import OPENMP_SPINS, conditions
from clever_fast.performance.timing import summary
from clever_fast.progress import rounds_bar

RESULTS = Path(__file__).resolve().parents[1] / "results" / "cpu_choices.jsonl"
RECIPES = {
    "clever_demo": {},
    "dino_vitt16_in1k": {"batch_size": 16, "global_size": 64, "local_size": 32, "local_crops": 4},
}
START, SECONDS = 15.0, 5.0  # for imports and warm-up, and of the measurement
SPIN_AS_USUAL = {"GOMP_SPINCOUNT": None}


@dataclass(frozen=True)
class Choice:
    """One way to train: environment variables, fields of `Execution`, whether oneDNN is used, processes at once."""

    name: str
    environment: dict[str, str | None]
    execution: dict[str, object]
    onednn: bool = True
    processes: int = 1


CHOICES = (
    Choice("as chosen", {}, {}),
    Choice("threads spin as OpenMP's do by default", SPIN_AS_USUAL, {}),
    Choice("threads never spin", SPIN_AS_USUAL | {"OMP_WAIT_POLICY": "passive"}, {}),
    Choice("bf16", {}, {"precision": "bf16"}),
    Choice("fp32", {}, {"precision": "fp32"}),
    Choice("NCHW in memory", {}, {"channels_last": False}),
    Choice("without oneDNN", {}, {}, onednn=False),
    Choice("two runs at once, as chosen", {}, {}, processes=2),
    Choice("two runs at once, threads spin as by default", SPIN_AS_USUAL, {}, processes=2),
    Choice("two runs at once, threads never spin", SPIN_AS_USUAL | {"OMP_WAIT_POLICY": "passive"}, {}, processes=2),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="a part of the names of the choices that are timed")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(images_per_second(*map(json.loads, options.worker)))
        return
    chosen = [choice for choice in CHOICES if not options.only or options.only in choice.name]
    found: dict[str, dict[str, list[float]]] = {name: {choice.name: [] for choice in chosen} for name in RECIPES}
    with rounds_bar(len(RECIPES) * len(chosen) * options.rounds) as (advance, _):
        for _ in range(options.rounds):
            for recipe in RECIPES:
                for choice in chosen:
                    found[recipe][choice.name].append(measure(recipe, choice))
                    advance(f"{recipe}, {choice.name}")
    rates = {name: {choice: summary(values) for choice, values in rows.items()} for name, rows in found.items()}
    append(options.results, {"benchmark": "cpu_choices", "images_per_second": rates, **conditions()})
    if options.results == RESULTS:
        write_section(DOCS / "speed.md", "cpu_choices", table(json.loads(RESULTS.read_text().splitlines()[-1])))


def measure(recipe: str, choice: Choice) -> float:
    """Images per second of one process; the mean of those that run at once."""
    environment = os.environ | {"GOMP_SPINCOUNT": OPENMP_SPINS}
    for name, value in choice.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    about = {"recipe": recipe, "execution": choice.execution, "onednn": choice.onednn}
    words = [sys.executable, "-m", __spec__.name, "--worker", json.dumps(about), json.dumps(time.time() + START)]
    started = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(choice.processes)
    ]
    return sum(float(process.communicate()[0]) for process in started) / choice.processes


def images_per_second(about: dict, begin: float) -> float:
    """Of training steps on noise from the time `begin` on, in this process."""
    import torch

    from clever_fast.accelerator import Accelerator
    from clever_fast.methods import Progress
    from clever_fast.options import Execution
    from clever_fast.performance.timing import noise
    from clever_fast.recipes import recipe
    from clever_fast.train_state import TrainState

    torch.backends.mkldnn.set_flags(about["onednn"])
    chosen = recipe(about["recipe"], **RECIPES[about["recipe"]])
    state = TrainState(chosen, Accelerator.from_execution(Execution(device="cpu", **about["execution"])))
    batch, step = noise(chosen, state.accelerator), 1000  # past the epoch of frozen layers
    while step < 1002 or time.time() < begin:
        state.step(batch, Progress(step, 100_000, 500))
        step += 1
    begin, first = time.perf_counter(), step
    while time.perf_counter() - begin < SECONDS:
        state.step(batch, Progress(step, 100_000, 500))
        step += 1
    return chosen.batch_size * (step - first) / (time.perf_counter() - begin)


def table(record: dict) -> str:
    rates = record["images_per_second"]
    lines = [f"| images/s of a run | {' | '.join(rates)} |", "|---" * (len(rates) + 1) + "|"]
    for choice in next(iter(rates.values())):
        cells = []
        for rows in rates.values():
            row, usual = rows[choice], rows["as chosen"]["median"]
            cells.append(f"{row['median']:.1f} ({row['low']:.1f} to {row['high']:.1f}), {row['median'] / usual:.2f}")
        lines.append(f"| {choice} | {' | '.join(cells)} |")
    rounds, versions = next(iter(rates["clever_demo"].values()))["rounds"], record["versions"]
    return "\n".join(lines) + (
        f"\n\nMedians of {rounds} alternating rounds, their extremes, and the ratio to what is chosen. "
        f"{record['cores']} cores of an {record['cpu']}, torch {versions['torch']}, {record['date']}, commit "
        f"{record['commit']}.\n"
    )


if __name__ == "__main__":
    main()
