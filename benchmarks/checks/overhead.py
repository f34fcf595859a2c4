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
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import torch
from torch import nn

from clever_fast import train
from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.environment import conditions
from clever_fast.methods import Batch, Dino, Method
from clever_fast.monitoring import metrics
from clever_fast.options import Execution, Run
from clever_fast.performance.timing import summary
from clever_fast.pipelines.manifest import Manifest
from clever_fast.recipes import RECIPES
from clever_fast.tracing import range_

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
        self.register_buffer("center", torch.zeros(1))

    def networks(self) -> tuple[nn.Module, ...]:
        return ()

    def forward(self, batch, progress):
        return {"loss": self.encoder(batch.global_crops).square().mean()}


class OneBatch:
    """In the place of `PretrainingBatches`."""

    steps_per_epoch = 10**6
    replaced: ClassVar[dict[str, str]] = {}

    def __init__(self, *_):
        pass

    def __iter__(self):
        return repeat(Batch(torch.ones(1, 1), None, torch.zeros(1, dtype=torch.int64)))

    def close(self) -> None:
        pass


def milliseconds_per_step(folder: Path, steps: int, log_every: int = 10) -> list[float]:
    """Of each log interval of a run on the CPU, the first one left out."""
    none = np.zeros((0, 2), np.int32)
    manifest = Manifest(folder, [], none, none[:, 0].astype(np.int64), [], {}, "")
    recipe = replace(RECIPES["dino_resnet10_cifar10"], method=OneNumber(), batch_size=1)
    execution = Execution(device="cpu", precision="fp32", threads=1)
    replacements = {"PretrainingBatches": OneBatch, "open_manifest": lambda *_, **__: manifest}
    with mock.patch.multiple(train, **replacements):
        train.train(recipe, execution, Run(data=folder, folder=folder, log_every=log_every, stop_after=steps))
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
