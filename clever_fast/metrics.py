"""What a run says about itself: device-side sums, JSON lines, a console and TensorBoard."""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table
from torch import Tensor

from clever_fast import distributed
from clever_fast.methods import Progress

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
    """Host time of one log interval, split into waiting for data and everything else."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.begin, self.waited, self.steps = time.perf_counter(), 0.0, 0

    def waiting(self, get: Callable[..., T], *args: Any) -> T:
        """`get(*args)`, its time counted as waiting for data, and one step."""
        begin = time.perf_counter()
        result = get(*args)
        self.waited += time.perf_counter() - begin
        self.steps += 1
        return result

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begin


class Log:
    """Writes a run's records: `metrics.jsonl` always, the console, and TensorBoard where it is installed.

    Only the main process writes. A record holds `kind` ("train", "knn"), `step`, `epoch` (fractional), `seconds` of
    training so far, and its values.
    """

    def __init__(self, folder: Path, *, title: str, start_step: int):
        self.path, self.seconds = folder / LOG, 0.0
        self.active = distributed.is_main()
        if not self.active:
            return
        self._rewind(start_step)
        self.console = Console(highlight=False)
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self.title, self.knn = title, ""
        if self.live:
            self.live.start()
        self.board = _tensorboard(folder, start_step)

    def say(self, text: str) -> None:
        if self.active:
            self.console.print(text, markup=False, soft_wrap=True)

    def train(self, progress: Progress, values: dict[str, float], seconds: float) -> None:
        """Means over the `seconds` since the last call."""
        if not self.active:
            return
        self.seconds += seconds
        self._write("train", progress, values)
        remaining = (progress.steps - progress.step) * values["seconds_per_step"]
        if self.live:
            self.live.update(self._panel(progress, values, remaining), refresh=True)
        else:
            losses = " ".join(f"{name} {value:.4f}" for name, value in values.items() if name in _LOSSES)
            print(
                f"epoch {progress.step / progress.steps_per_epoch:.2f} step {progress.step}/{progress.steps} "
                f"eta {_duration(remaining)} {losses} lr {values['lr']:.2e} {values['images_per_second']:.0f} images/s "
                f"data wait {values['data_wait']:.0%} memory {values['memory_mib']:.0f} MiB",
                flush=True,
            )

    def evaluation(self, progress: Progress, values: dict[str, float]) -> None:
        if self.active:
            self._write("knn", progress, values)
            self.knn = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
            self.say(f"epoch {progress.step / progress.steps_per_epoch:.0f}: {self.knn}")

    def close(self) -> None:
        if self.active:
            if self.live:
                self.live.stop()
            if self.board:
                self.board.close()

    def _write(self, kind: str, progress: Progress, values: dict[str, float]) -> None:
        record = {
            "kind": kind,
            "step": progress.step,
            "epoch": round(progress.step / progress.steps_per_epoch, 4),
            "seconds": round(self.seconds, 3),
            **{name: value if math.isfinite(value) else None for name, value in values.items()},
        }
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(f"{kind}/{name}", value, progress.step)

    def _rewind(self, step: int) -> None:
        """Drop the records of steps that will be done again; take the clock from the last one that stays."""
        kept = [record for record in read(self.path) if record["step"] <= step and step > 0]
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        self.path.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def _panel(self, progress: Progress, values: dict[str, float], remaining: float) -> Table:
        table = Table(title=self.title, title_justify="left", show_header=False, box=None, padding=(0, 2))
        done = progress.step / progress.steps
        bar = "━" * round(40 * done) + "[dim]" + "━" * (40 - round(40 * done)) + "[/dim]"
        table.add_row("epoch", f"{progress.step / progress.steps_per_epoch:.2f}", f"[green]{bar}[/green] {done:.0%}")
        table.add_row("step", f"{progress.step}", f"of {progress.steps}, {_duration(remaining)} to go")
        for name in _LOSSES:
            if name in values:
                table.add_row(name, f"{values[name]:.4f}", "")
        table.add_row("lr", f"{values['lr']:.2e}", "")
        table.add_row("images/s", f"{values['images_per_second']:.0f}", f"waiting for data {values['data_wait']:.0%}")
        table.add_row("memory", f"{values['memory_mib']:.0f}", "MiB at its peak")
        if self.knn:
            table.add_row("k-NN", "", self.knn)
        return table


_LOSSES = ("loss", "invariance", "orthogonality", "preg")


def read(path: Path) -> list[dict[str, Any]]:
    """A run's records; a last line cut short by a crash is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def peak_memory_mib(device: torch.device) -> float:
    """Peak of the device's allocations, or of this process's resident memory on a CPU, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _tensorboard(folder: Path, start_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard", purge_step=start_step)
