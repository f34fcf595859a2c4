"""One run at a time in a run's folder, on one host or many."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from clever_fast import distributed
from clever_fast.errors import UserError

LOCK = "run.lock"
BEAT = 15.0  # seconds between two signs of life
SILENT = 60.0  # seconds without one after which a run on another host is taken for dead


@contextmanager
def locked(folder: Path, *, beat: float = BEAT, silent: float = SILENT) -> Iterator[None]:
    """Within, no other run writes into the folder. The main process holds the lock for all.

    On one host, and on file systems that share their locks, the kernel holds it and lets go of it when the process
    ends, however it ends. For the others the lock's file is touched every `beat` seconds: one that another host left
    behind counts as held until it was not touched for `silent` seconds, for which this waits.

    Raises:
        UserError: another process holds it; names the process and its host.
    """
    if not distributed.is_main() or not _can_write(folder):  # what cannot be written is refused by name later
        yield
        return
    with _taken(folder / LOCK) as file:
        _wait_for_another_host(folder / LOCK, file, silent)
        file.truncate(0)
        file.seek(0)
        file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode())
        file.flush()
        done = threading.Event()
        thread = threading.Thread(target=_beat, args=(file, done, beat), name="run lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            with suppress(OSError):
                (folder / LOCK).unlink()


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


@contextmanager
def _taken(path: Path) -> Iterator[BinaryIO]:
    while True:
        with path.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _refuse(path)
            except OSError:  # a file system without locks: the signs of life are all there is
                pass
            with suppress(FileNotFoundError):  # the one before may have removed it in between
                if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                    yield file
                    return


def _wait_for_another_host(path: Path, file: BinaryIO, silent: float) -> None:
    owner = _owner(path)
    if owner.get("host") in (None, socket.gethostname()):
        return
    touched = os.fstat(file.fileno()).st_mtime_ns
    print(f"{path.parent}: its last run, on {owner['host']}, did not end; waiting {silent:.0f} s for a sign of life")
    end = time.monotonic() + silent
    while time.monotonic() < end:
        time.sleep(min(1.0, silent / 10))
        if os.fstat(file.fileno()).st_mtime_ns != touched:
            _refuse(path)


def _refuse(path: Path) -> None:
    owner = _owner(path)
    who = f"process {owner['process']} on {owner['host']}" if owner else "another process"
    raise UserError(f"{who} is training in {path.parent}: wait for it or stop it, or give another --run")


def _owner(path: Path) -> dict:
    try:
        owner = json.loads(path.read_bytes())
        return owner if {"host", "process"} <= owner.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _beat(file: BinaryIO, done: threading.Event, beat: float) -> None:
    while not done.wait(beat):
        with suppress(OSError):
            os.utime(file.fileno())
