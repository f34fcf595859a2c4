"""A run as its folder tells it, drawn for a terminal."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clever_fast.monitoring.metrics import FORMER, LOG

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH, LINE = 66, 24  # characters of a panel, and of a sparkline
RECENT = 5  # reports that speeds are taken from
SILENT = 60.0  # seconds that a run may say nothing, beside ten times its interval between reports


@dataclass
class Records:
    """A run's records, read again only where the file has grown; `reports`, `scores`, `warnings` by kind."""

    folder: Path
    start: dict[str, Any] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    modified: float = 0.0
    _read: tuple[int, int] = (0, 0)  # the file's inode and the bytes read of it

    def refresh(self) -> None:
        """Read what is new; all of it where the run went back to an earlier step and wrote its log anew."""
        path = self.folder / LOG
        try:
            with path.open("rb") as file:
                about = path.stat()
                inode, offset = self._read
                if inode != about.st_ino or about.st_size < offset:
                    self.start, self.reports, self.scores, self.warnings, offset = {}, [], [], [], 0
                file.seek(offset)
                new = file.read()
        except OSError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._read, self.modified = (about.st_ino, offset + len(whole)), about.st_mtime
        lists = {"train": self.reports, "knn": self.scores, "warning": self.warnings}
        for line in whole.splitlines():
            try:
                record = json.loads(line)
                if record["kind"] == "start":
                    self.start = record
                    self.warnings.clear()  # of an earlier start
                else:
                    lists[record["kind"]].append(record)
            except (ValueError, KeyError, TypeError):
                continue

    def failures(self) -> list[str]:
        """The bundles of failed steps that lie in the folder and are not older than its last report."""
        found = self.folder.glob("not_finite_step_*.json")
        return sorted(p.stem for p in found if p.stat().st_mtime >= self.modified - SILENT)


def sparkline(values: Sequence[float | None], width: int = LINE) -> str:
    """Values as a row of at most `width` blocks from their least to their greatest, neighbours averaged."""
    known = [v for v in values if v is not None]
    if not known:
        return ""
    count = min(width, len(known))
    edges = [len(known) * i // count for i in range(count + 1)]
    means = [sum(known[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)


def state(records: Records, now: float) -> tuple[str, str]:
    """What a run is doing, and the colour to say it in."""
    if not records.reports:
        return ("no report yet", "yellow") if records.start else ("no run here", "red")
    last, quiet = records.reports[-1], now - records.modified
    if failures := records.failures():
        return f"stopped: {failures[-1].replace('_', ' ')}", "bold red"
    if last["step"] >= records.start.get("steps", float("inf")):
        return "finished", "green"
    interval = last["seconds"] - records.reports[-2]["seconds"] if len(records.reports) > 1 else 0.0
    if quiet > max(SILENT, 10 * interval):
        return f"silent for {duration(quiet)}", "yellow"
    return "running", "cyan"


def panel(records: Records, now: float | None = None) -> RenderableType:
    """One run: where it stands, how its loss and accuracy go, how fast it is, and what it warned about."""
    doing, colour = state(records, time.time() if now is None else now)
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", min_width=9)
    table.add_column(width=LINE, no_wrap=True)
    table.add_column(no_wrap=True)
    if records.reports:
        for row in [*_progress(records), *_values(records), *_speed(records)]:
            table.add_row(*row)
    grid = Table.grid()
    grid.add_row(Text(doing, style=colour))
    grid.add_row(table)
    for warning in records.warnings[-3:]:
        grid.add_row(Text(f"! {warning['text']}", style="yellow", overflow="fold"))
    name = Text("/".join(records.folder.parts[-2:]), style="bold")
    return Panel(grid, title=name, title_align="left", subtitle=records.start.get("title"), width=WIDTH)


def frame(runs: Sequence[Records]) -> RenderableType:
    """All runs, side by side where there is room."""
    for run in runs:
        run.refresh()
    return Columns([panel(run) for run in runs])


def duration(seconds: float) -> str:
    """Two units of a time: 3 d 4 h, 2 h 05 min, 3 min 20 s, 8 s."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    return f"{h} h {m:02d} min" if h else f"{m} min {s:02d} s" if m else f"{s} s"


Row = tuple[str, RenderableType, str]


def _progress(records: Records) -> list[Row]:
    last, steps = records.reports[-1], records.start.get("steps")
    rows = [("epoch", Text(f"{last['epoch']:.2f}"), f"{duration(last['seconds'])} so far")]
    if not steps:
        return [*rows, ("step", Text(f"{last['step']:,}"), "")]
    share = min(1.0, last["step"] / steps)
    done = round(LINE * share)
    bar = Text.assemble(("━" * done, "green"), ("━" * (LINE - done), "bright_black"))
    recent = records.reports[-RECENT:]
    left = (steps - last["step"]) * sum(r["seconds_per_step"] for r in recent) / len(recent)
    return [
        ("done", bar, f"{share:.1%}" + (f", {duration(left)} to go" if left > 0 else "")),
        ("step", Text(f"{last['step']:,} of {steps:,}"), ""),
        *rows,
    ]


def _values(records: Records) -> list[Row]:
    """The losses and monitors, each with its course over the run."""
    last, rows = records.reports[-1], []
    own = records.start.get("metrics", FORMER)
    watched = [(m["name"], m["label"] or m["name"]) for m in own if m.get("live") or m.get("watched")]
    for name, label in (("loss", "loss"), *watched, ("gradient_norm", "gradient")):
        if name in last:
            value = "not finite" if last[name] is None else f"{last[name]:.4g}"
            rows.append((label, Text(sparkline([r.get(name) for r in records.reports]), style="blue"), value))
    for name in [key for key in records.scores[-1] if key.startswith("knn@")] if records.scores else ():
        course = [r[name] for r in records.scores if r.get(name) is not None]
        if course:
            label = name.removeprefix("knn@").split(" ", 1)[-1]
            told = f"{course[-1]:.1f} %, best {max(course):.1f} %"
            rows.append((f"k-NN {label}", Text(sparkline(course), style="magenta"), told))
    return rows


def _speed(records: Records) -> list[Row]:
    last = records.reports[-1]
    course = [r["images_per_second"] for r in records.reports]
    waits = [r["data_wait"] for r in records.reports]
    return [
        ("images/s", Text(sparkline(course), style="green"), f"{sum(course[-RECENT:]) / len(course[-RECENT:]):,.0f}"),
        ("data wait", Text(sparkline(waits), style="green"), f"{waits[-1]:.0%}"),
        ("memory", Text(""), f"{last['memory_mib']:,.0f} MiB"),
    ]
