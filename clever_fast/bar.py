"""Progress bars with images or bytes per second, on a terminal; nothing elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def images_bar(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Yields the function that counts one image of `total`. Draws on stdout."""
    from rich.console import Console

    console = Console()
    if not (shown and console.is_terminal):
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    speed = TextColumn("{task.fields[speed]:,.0f} images/s")
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task, started, count = bar.add_task(what, total=total, speed=0.0), time.perf_counter(), 0

        def advance() -> None:
            nonlocal count
            count += 1
            if count % 64 == 0 or count == total:
                bar.update(task, completed=count, speed=count / (time.perf_counter() - started))

        yield advance


@contextmanager
def bytes_bar(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Yields the function that counts some bytes of `total`; threads may call it. Draws on stdout."""
    from rich.console import Console

    console = Console()
    if not (shown and console.is_terminal):
        yield lambda count: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
