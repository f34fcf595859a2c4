"""Standard output and errors that no run ends with: a reader may leave, a disk fill, and a name be no UTF-8."""

import os
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
