"""Being told to stop: by a scheduler, a user, or another process of the same run."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


class SharedFlag:
    """A flag that any rank may raise and all ranks see at the same step, one step later.

    The exchange of a step runs on the host beside the step's computation, so asking costs no device synchronisation.
    """

    def __init__(self) -> None:
        self.raised = False  # on this rank
        self._shared = torch.zeros(1, dtype=torch.int32)
        self._work: dist.Work | None = None

    def raise_(self) -> None:
        self.raised = True

    def seen_by_all(self) -> bool:
        """Whether any rank had raised the flag when the previous call was made; every rank calls it once a step."""
        if not dist.is_initialized():
            return self.raised
        if self._work is not None:
            self._work.wait()
        seen = bool(self._shared.item())
        self._shared.fill_(int(self.raised or seen))
        self._work = dist.all_reduce(self._shared, dist.ReduceOp.MAX, async_op=True)
        return seen

    def close(self) -> None:
        if self._work is not None:
            self._work.wait()


STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"))
_stopped_by: list[int] = []


def stopped_by() -> int | None:
    """The signal that told this process's newest run to stop, None where none did."""
    return _stopped_by[0] if _stopped_by else None


@contextmanager
def stop_signals() -> Iterator[SharedFlag]:
    """A flag that the signals of schedulers and users raise; a second interrupt from the keyboard is not held back."""
    flag = SharedFlag()
    _stopped_by.clear()

    def handle(number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _stopped_by.append(number)
        flag.raise_()

    before = {number: signal.signal(number, handle) for number in STOPS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        flag.close()
