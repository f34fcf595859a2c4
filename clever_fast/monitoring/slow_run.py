"""How steadily a run goes: one warning where it is much slower than it could be, and no pauses for garbage."""

import gc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clever_fast.accelerator import Accelerator
from clever_fast.monitoring.metrics import Clock

WARM_UP = 5  # steps in which a run makes what it keeps
SLOW, INTERVALS = 2.0, 3  # times the compute clock, and log intervals in a row, before a run is called slow


class Pace:
    """Compares each log interval with the compute clock: the fewest seconds that a step took, without its data."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator, self.compute, self.warned = accelerator, float("inf"), False
        self.recent: deque[tuple[float, float]] = deque(maxlen=INTERVALS)  # (seconds, waited) of a step
        self.first = True  # compiles, tunes and fills caches

    def warning(self, clock: Clock) -> str | None:
        """What slows the run, once, when `INTERVALS` log intervals in a row took more than twice the compute clock."""
        if self.first:
            self.first = False
            return None
        seconds, waited = clock.seconds / clock.steps, clock.waited / clock.steps
        self.compute = min(self.compute, seconds - waited)
        self.recent.append((seconds, waited))
        slow = len(self.recent) == INTERVALS and all(s > SLOW * self.compute for s, _ in self.recent)
        if self.warned or not slow:
            return None
        self.warned = True
        seconds, waited = (sum(values) / INTERVALS for values in zip(*self.recent, strict=True))
        told = f"slow: a step takes {1e3 * seconds:,.0f} ms and could take {1e3 * self.compute:,.0f} ms; "
        if waited > seconds - waited - self.compute:
            where = "the CPU" if self.accelerator.device.type == "cpu" else "the GPU"
            return told + (
                f"{waited / seconds:.0%} of the time it waits for data (decoded on {where}, "
                f"{self.accelerator.execution.threads} threads): `clever-fast doctor --tune --data DIR` looks for "
                "better settings, more cores help"
            )
        return told + "the step itself is slower than it was: something else uses this machine, or it is throttled"


@contextmanager
def frozen_garbage() -> Iterator[Callable[[], None]]:
    """Yields the function that takes every object now alive out of the garbage collector's sight, until the end.

    What a run keeps is made in its first steps; walking over it again and again makes steps late.
    """

    def freeze() -> None:
        gc.collect()
        gc.freeze()

    try:
        yield freeze
    finally:
        gc.unfreeze()
