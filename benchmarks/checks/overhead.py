"""What the loop itself costs a step: the real `train` on a method of one parameter, fed with one batch that is there.

    python -m clever_fast.benchmarks.checks.overhead

Reports, records and the optimizer of one parameter are in it; pixels, networks and the loader are not. Beside it, what
a range costs while nobody listens.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import timeit
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import torch
from torch import nn

from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.data import Batches
from clever_fast.environment import conditions
from clever_fast.methods import Batch, Dino, Method
from clever_fast.monitoring import metrics
from clever_fast.options import Execution, Run
from clever_fast.performance.timing import summary
from clever_fast.recipes import RECIPES
from clever_fast.tracing import range_
from clever_fast.train import train

RESULTS = Path(__file__).resolve().parents[1] / "results" / "overhead.jsonl"


@dataclass(frozen=True, kw_only=True)
class OneNumber(Dino):
    """A method that learns one number."""

    def build(self, backbone, drop_path: float) -> Method:
        return OneNumberMethod()


class OneNumberMethod(Method):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(1, 1)

    def forward(self, batch, progress):
        return {"loss": self.encoder(batch.global_crops).square().mean()}


class OneBatch(Batches):
    """A loader of one batch that is there already."""

    steps_per_epoch = 10**6

    def __init__(self, start_step: int):
        pass

    def __iter__(self) -> Iterator[Batch]:
        return repeat(Batch(torch.ones(1, 1), None, torch.zeros(1, dtype=torch.int64)))


def milliseconds_per_step(folder: Path, steps: int, log_every: int = 10) -> list[float]:
    """Of each log interval of a run on the CPU, the first one left out."""
    recipe = replace(RECIPES["dino_resnet10_cifar10"], method=OneNumber(), batch_size=1)
    execution = Execution(device="cpu", precision="fp32", threads=1)
    train(recipe, execution, Run(folder=folder, log_every=log_every, stop_after=steps), batches=OneBatch)
    records = [r for r in metrics.read(folder / metrics.LOG) if r["kind"] == "train"]
    return [1e3 * r["seconds_per_step"] for r in records[1:]]


def range_nanoseconds(calls: int = 100_000) -> list[float]:
    """Of a range that nobody listens to, in each of five rounds."""
    scope = {"range_": range_}
    return [1e9 * seconds / calls for seconds in timeit.repeat("with range_('a'): pass", globals=scope, number=calls)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        loop = summary(milliseconds_per_step(Path(folder), options.steps))
    record = {"benchmark": "overhead", "loop_ms": loop, "range_ns": summary(range_nanoseconds()), **conditions()}
    append(options.results, record)
    print(json.dumps(record))
    if options.results == RESULTS:
        write_section(DOCS / "profiling.md", "overhead", sentence(record))


def sentence(record: dict) -> str:
    loop, off = record["loop_ms"], record["range_ns"]
    return (
        f"Without a model and a loader a step of the loop takes {loop['median']:.2f} ms of the host "
        f"({loop['low']:.2f} to {loop['high']:.2f} in {loop['rounds']} intervals of 10 steps, their reports included). "
        f"A range costs {off['median']:.0f} ns while nobody listens; a step enters about twenty. One thread of an "
        f"{record['cpu']}, {record['date']}, commit {record['commit']}; torch {record['versions']['torch']}.\n"
    )


if __name__ == "__main__":
    main()
