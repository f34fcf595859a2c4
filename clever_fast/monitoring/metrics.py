"""What a run says about itself: device-side sums, JSON lines, a console, and the loggers it asked for."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from clever_fast import distributed
from clever_fast.methods import Metric, Progress
from clever_fast.monitoring.console import Screen
from clever_fast.monitoring.loggers import open_loggers
from clever_fast.options import Logger
from clever_fast.tracing import mark, range_, seconds_between

LOG = "metrics.jsonl"
T = TypeVar("T")


class Meter:
    """Means of scalars that stay on the device until they are read, over the steps since the last reading."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sum: Tensor | None = None
        self._steps = 0

    def add(self, values: dict[str, Tensor]) -> None:
        stacked = torch.stack([value.detach().float() for value in values.values()])
        self._names, self._steps = tuple(values), self._steps + 1
        self._sum = stacked if self._sum is None else self._sum + stacked

    def read(self) -> dict[str, float]:
        """Means over steps and ranks; waits for the device."""
        values = distributed.mean(self._sum / self._steps).tolist()
        self._sum, self._steps = None, 0
        return dict(zip(self._names, values, strict=True))


class Clock:
    """Time of one log interval, split into waiting for data and everything else.

    On a GPU, waiting is what its stream stands idle between a step's last kernel and the next batch: a host that runs
    ahead of the device waits for nothing that matters. It is read only after the host has waited for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        self.begin, self.steps, self._waits = time.perf_counter(), 0, []

    def waiting(self, get: Callable[..., T], *args: Any) -> T:
        """`get(*args)`, its time counted as waiting for data, and one step."""
        begin = mark(self.device)
        with range_("data"):
            result = get(*args)
        self._waits.append((begin, mark(self.device)))
        self.steps += 1
        return result

    @property
    def waited(self) -> float:
        """Seconds; on a GPU those of marks that it has passed."""
        return sum(seconds_between(begin, end) for begin, end in self._waits)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begin


class Log:
    """Writes a run's records: `metrics.jsonl` always, the console, and `loggers` (loggers.py).

    Only the main process writes. A record holds `kind` ("start", "train", "knn", "warning"), `step`, `epoch`
    (fractional), `seconds` of training so far, and its values.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        start_step: int,
        metrics: Sequence[Metric] = (),
        loggers: tuple[Logger, ...] | None = None,
    ):
        self.path, self.seconds = folder / LOG, 0.0
        self.active = distributed.is_main()
        if self.active:
            self._rewind(start_step)
            self.loggers = open_loggers(loggers, folder, start_step)
            self.screen = Screen(title, metrics)

    def say(self, text: str) -> None:
        if self.active:
            self.screen.say(text)

    def warn(self, progress: Progress, text: str) -> None:
        """Something that a user should look at."""
        if self.active:
            self._append("warning", progress, {"text": text})
            self.screen.say(text)

    def start(self, progress: Progress, settings: dict[str, Any]) -> None:
        """What the run has been started or resumed on: versions, hardware, flags."""
        if self.active:
            self._append("start", progress, settings)

    def train(self, progress: Progress, values: dict[str, float], seconds: float) -> None:
        """Means over the `seconds` since the last call."""
        self.seconds += seconds
        if self.active:
            self._write("train", progress, values)
            self.screen.show(progress, values)

    def evaluation(self, progress: Progress, values: dict[str, float]) -> None:
        """Accuracies in percent, by name."""
        if self.active:
            self._write("knn", progress, values)
            self.screen.evaluation(progress, values)

    def close(self) -> None:
        if self.active:
            self.screen.close()
            for logger in self.loggers:
                try:
                    logger.close()
                except Exception as error:
                    self.say(f"{logger.name} did not finish: {error}")

    def _write(self, kind: str, progress: Progress, values: dict[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._append(kind, progress, finite)
        named = {f"{kind}/{name}": value for name, value in values.items()}
        for logger in list(self.loggers):
            try:
                logger.write(named, progress.step)
            except Exception as error:  # a logger's server or disk is no reason to lose the run
                self.loggers.remove(logger)
                self.say(f"{logger.name} failed and is left out from here on: {error}")

    def _append(self, kind: str, progress: Progress, values: dict[str, Any]) -> None:
        epoch, seconds = round(progress.step / progress.steps_per_epoch, 4), round(self.seconds, 3)
        record = {"kind": kind, "step": progress.step, "epoch": epoch, "seconds": seconds, **values}
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:  # a full disk: a lost record is no reason to lose the run
            self.say(f"cannot write {self.path}: {error.strerror}")

    def _rewind(self, step: int) -> None:
        """Drop the records of steps that will be done again; take the clock from the last one that stays."""
        kept = [record for record in read(self.path) if record["step"] <= step and step > 0]
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(temporary, self.path)


def read(path: Path) -> list[dict[str, Any]]:
    """A run's records; a line cut short by a crash or a full disk is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


# what the methods of runs from before they declared it logged
FORMER = (
    {"name": "invariance", "label": "invariance", "unit": "", "panel": "losses", "watched": True},
    {"name": "orthogonality", "label": "orthogonality", "unit": "", "panel": "losses", "watched": True},
    {"name": "preg", "label": "PReg gap", "unit": "", "panel": "PReg", "watched": True},
)


def declared(records: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """What a run's method declares about its metrics (see `methods.Metric`), from the records of the run."""
    starts = [record["metrics"] for record in records if record["kind"] == "start" and "metrics" in record]
    return starts[-1] if starts else FORMER


def peak_memory_mib(device: torch.device) -> float:
    """Peak of the device's allocations, or of this process's resident memory on a CPU, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
