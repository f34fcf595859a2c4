"""Standard output and errors that no run ends with: a reader may leave, a disk fill, and a name be no UTF-8."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class LastingStream:
    """A text stream that goes on as nothing where it cannot be written any more.

    What the encoding of the terminal lacks is written as a backslash and its number.
    """

    def __init__(self, stream: TextIO, name: str):
        self._stream, self._name, self._lost = stream, name, False
        with suppress(AttributeError):
            cast(Any, stream).reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._lost:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        """Lead its file descriptor nowhere, or Python fails at it once more when it ends."""
        self._lost = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if self._name == "stdout" and not isinstance(error, (BrokenPipeError, ValueError)):  # a full disk
            print(f"clever-fast: cannot print any more: {cast(OSError, error).strerror}", file=sys.stderr)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Within, sys.stdout and sys.stderr never raise."""
    before = sys.stdout, sys.stderr
    out, errors = (
        stream if stream is None or isinstance(stream, LastingStream) else LastingStream(stream, name)
        for stream, name in zip(before, ("stdout", "stderr"), strict=True)
    )
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, errors)
    try:
        yield
    finally:
        for stream in (out, errors):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


def show(table: Any, title: str = "") -> None:
    """Print a table of rich's with all its words, also where that is wider than the terminal, which then wraps it."""
    from rich.console import Console

    console = Console()
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console = (
        Console(width=max(needed, len(title), 1)) if needed > console.width or not console.is_terminal else console
    )
    if title:
        console.print(title, style="italic")
    console.print(table)


class Interrupted(KeyboardInterrupt):
    """A signal other than the keyboard's has told this process to stop."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise `Interrupted`, where the process has left them to Python."""

    def handle(number: int, _frame: object) -> None:
        raise Interrupted(number)

    before: dict[int, Any] = {}
    with suppress(ValueError):  # not the main thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP, and so does what it starts
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Within, the signals that stop a process end it there and then: an exception in the middle of an import of C++
    would abort it."""

    def handle(number: int, _frame: object) -> None:
        os.write(2, stopped(number).encode())
        os._exit(128 + number)

    before: dict[int, Any] = {}
    with suppress(ValueError):  # not the main thread
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped(number: int) -> str:
    """The one line of a command that a signal has ended."""
    return f"clever-fast: stopped by {signal.Signals(number).name}\n"


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell expects of a process that a signal has ended; from here on no other signal ends it half-way."""
    with suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)
