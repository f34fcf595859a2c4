"""Progress bars, drawn on a terminal only."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 30.0  # seconds between two lines where there is no terminal


class Lines:
    """A line of progress now and then, for a log; nothing of what ends within half a minute.

    Args:
        what: what is done.
        total: how much of it.
        unit: of what.
        divisor: of the counts that are printed.
    """

    def __init__(self, what: str, total: int, unit: str, divisor: int = 1):
        self.what, self.total, self.unit, self.divisor = what, total, unit, divisor
        self.count, self.begin = 0, time.monotonic()
        self.next = self.begin + EVERY

    def advance(self, count: int = 1, what: str | None = None) -> None:
        self.count, self.what = self.count + count, what or self.what
        now = time.monotonic()
        if now >= self.next:
            self.next = now + EVERY
            done, total = (f"{n // self.divisor:,}" for n in (self.count, self.total))
            left = (now - self.begin) * (self.total - self.count) / max(self.count, 1)
            print(f"{self.what}: {done} of {total} {self.unit}, about {left:,.0f} s to go", flush=True)


@contextmanager
def images_bar(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Yields the function that counts one image of `total`, or as many as it is told. Draws on stdout."""
    from rich.console import Console

    console = Console()
    if not (shown and console.is_terminal):
        yield Lines(what, total, "images").advance if shown else lambda images=1: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    speed = TextColumn("{task.fields[speed]:,.0f} images/s")
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task, started, count = bar.add_task(what, total=total, speed=0.0), time.perf_counter(), 0
        drawn = 0

        def advance(images: int = 1) -> None:
            nonlocal count, drawn
            count += images
            if count - drawn >= 64 or count >= total:
                drawn = count
                bar.update(task, completed=count, speed=count / (time.perf_counter() - started))

        yield advance


@contextmanager
def rounds_bar(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """Yields (advance, say): one counts a round of `total` and names it, the other prints a line above the bar."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        lines = Lines("", total, "rounds")
        yield (lambda what: lines.advance(1, what)), (lambda text: print(text, flush=True))
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield (
            lambda what: bar.update(task, advance=1, description=what),
            lambda text: console.print(text, markup=False, soft_wrap=True),
        )


@contextmanager
def bytes_bar(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Yields the function that counts some bytes of `total`; threads may call it. Draws on stdout."""
    from rich.console import Console

    console = Console()
    if not (shown and console.is_terminal):
        yield Lines(what, total, "MB", 10**6).advance if shown else lambda count: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
