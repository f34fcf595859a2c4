"""Names for the parts of a run, heard by nsys, torch's profiler and a stopwatch; next to free while nobody listens."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch.compiler import is_compiling, is_dynamo_compiling

F = TypeVar("F", bound=Callable)
Listener = Callable[[str], AbstractContextManager]


_OFF = nullcontext()  # not a class of ours: torch 2.11's dynamo enters none in compiled code
_listeners: tuple[Listener, ...] = ()
_epoch: tuple[int, ExitStack] | None = None


def range_(name: str) -> AbstractContextManager:
    """The part of a run that is called `name`, around its statements.

    Compiled code holds no ranges: dynamo takes the first condition for a constant, so it neither breaks a graph nor
    compiles it anew when somebody begins to listen.
    """
    if is_dynamo_compiling() or not _listeners or is_compiling():
        return _OFF
    return _heard(name)


def ranged(name: str) -> Callable[[F], F]:
    """Decorates a function all of whose calls are the range `name`."""

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with range_(name):
                return function(*args, **kwargs)

        return call

    return decorate


def at_epoch(epoch: int) -> None:
    """Ends the range of the epoch before, if this is another, and begins "epoch N"."""
    global _epoch
    if not _listeners or (_epoch and _epoch[0] == epoch):
        return
    _leave_epoch()
    stack = ExitStack()
    stack.enter_context(_heard(f"epoch {epoch}"))
    _epoch = epoch, stack


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Within it, every range is entered in each of `listeners`, such as a `Stopwatch`."""
    global _listeners
    before, _listeners = _listeners, (*_listeners, *listeners)
    try:
        yield
    finally:
        _leave_epoch()
        _listeners = before


def emitted(wanted: bool = True) -> AbstractContextManager:
    """Within it, if `wanted`, ranges are torch.profiler's and, where there is a GPU, NVTX's."""
    nvtx = (torch.cuda.nvtx.range,) if torch.cuda.is_available() else ()
    return listening(torch.profiler.record_function, *nvtx) if wanted else _OFF


class Stopwatch:
    """Collects the time in each range: of the device's current stream on a GPU, of the host elsewhere.

    On a GPU the marks are events between the kernels, so a range lasts from the end of the kernels before it to the end
    of its own, however far the host is ahead; nothing waits until `milliseconds` is read.
    """

    def __init__(self, device: torch.device):
        self.device, self.spans = device, []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = mark(self.device)
        yield
        self.spans.append((name, begin, mark(self.device)))

    def milliseconds(self) -> dict[str, float]:
        """The sum over all ranges of a name, in the order in which names first ended; waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        total: dict[str, float] = {}
        for name, begin, end in self.spans:
            total[name] = total.get(name, 0.0) + 1e3 * seconds_between(begin, end)
        return total


def mark(device: torch.device) -> Any:
    """This moment on the device's current stream, or on the host where the device is a CPU."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(begin: Any, end: Any) -> float:
    """Between two marks; the device must have passed both."""
    return end - begin if isinstance(end, float) else begin.elapsed_time(end) / 1e3


@contextmanager
def _heard(name: str) -> Iterator[None]:
    with ExitStack() as stack:
        for listener in _listeners:
            stack.enter_context(listener(name))
        yield


def _leave_epoch() -> None:
    global _epoch
    if _epoch:
        _epoch[1].close()
        _epoch = None
