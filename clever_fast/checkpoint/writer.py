"""Checkpoints written beside the training: a copy of the state, then a thread that serialises, syncs and renames."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clever_fast import checkpoint

NICENESS = 10  # of the thread that writes, on Linux: training goes first


class Writer:
    """Writes a run's checkpoints, one at a time and in order.

    Args:
        folder: of the run.
        keep: how many checkpoints stay.
        say: told of a checkpoint in the background that could not be written; the one before stays.
    """

    def __init__(self, folder: Path, keep: int, say: Callable[[str], None]):
        self.folder, self.keep, self.say = folder, keep, say
        self._thread = ThreadPoolExecutor(1, "checkpoint", _be_nice)
        self._pending: Future | None = None
        self._given_up = threading.Event()
        self._copy: Any = None  # kept: fresh memory costs more than the copy, pinned memory much more

    def begin(self, state: dict[str, Any]) -> None:
        """Returns once `state` is copied (on a GPU: once its copy is on the stream); waits for the one before."""
        self.wait()
        self._copy = _copied(state, self._copy)
        copied = torch.cuda.Event() if torch.cuda.is_available() else None
        if copied:
            copied.record()
        self._pending = self._thread.submit(self._save, self._copy, copied)

    def write(self, state: dict[str, Any]) -> None:
        """Returns once `state` is on the disk. What was on its way there is given up: nobody needs it any more.

        Raises:
            OSError: the disk is full or read-only; the newest checkpoint is then untouched.
        """
        self._given_up.set()
        self.wait()
        self._given_up.clear()
        checkpoint.save(self.folder, state, keep=self.keep)

    def wait(self) -> None:
        """Until nothing is on its way to the disk."""
        pending, self._pending = self._pending, None
        try:
            if pending:
                pending.result()
        except OSError as error:
            if not self._given_up.is_set():
                self.say(f"{error}; training goes on, the checkpoint before stays")

    def close(self) -> None:
        self.wait()
        self._thread.shutdown()

    def _save(self, state: dict[str, Any], copied: torch.cuda.Event | None) -> None:
        if copied:
            copied.synchronize()
        checkpoint.save(self.folder, state, keep=self.keep, given_up=self._given_up.is_set)


def _be_nice() -> None:
    if sys.platform == "linux":  # elsewhere it would be that of the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


def _copied(value: Any, old: Any) -> Any:
    """A copy on the host, its tensors in the memory of the copy `old` where they fit; pinned if they are a GPU's."""
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        return {key: _copied(item, before.get(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item, None) for item in value]
    if not isinstance(value, Tensor):
        return value
    # Strides stay as well: the fused optimizers walk over a weight and its moments in the order of memory.
    if not isinstance(old, Tensor) or _layout(old) != _layout(value):
        old = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
    return old.copy_(value, non_blocking=True)


def _layout(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.stride(), tensor.dtype
