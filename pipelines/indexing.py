"""Decodes every image once, to learn its size after EXIF rotation or why it cannot be read."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clever_fast.pipelines.listing import Listing
from clever_fast.pipelines.reading import decoder, open_file, silent_codecs
from clever_fast.progress import images_bar

CHUNK = 1024  # files submitted at a time, so that an interruption need not wait for all


class Rows:
    """One entry for each file, readable or not. The first `len(paths)` rows of `numbers` are filled."""

    def __init__(self, paths: list[str], numbers: np.ndarray, reasons: list[str]):
        self.paths = paths  # relative to the root
        # (n, columns) int64: label, width and height after EXIF (0 if unreadable), bytes; then the mtime in ns of a
        # file, or the shard and offset of a member
        self.numbers = numbers
        self.reasons = reasons  # empty if readable

    @classmethod
    def reserve(cls, count: int = 0) -> "Rows":
        return cls([], np.zeros((count, 5), np.int64), [])


def index_images(root: Path, listing: Listing, rows: Rows, *, known: Rows, threads: int = 0, progress=False) -> float:
    """Fills `rows` in the order of the listing; an interruption leaves the first rows filled.

    Args:
        root: folder that the paths are relative to.
        listing: the files.
        rows: empty, with room for all files.
        known: earlier rows; one whose file has the same size and modification time is taken over without decoding.
        threads: decoding threads, 0 for one per core that this process may use.
        progress: draw a bar with images per second (only on a terminal).

    Returns:
        Seconds taken.

    Raises:
        UserError: nvImageCodec is not installed.
    """
    examine = _examiner(root, known)
    started = time.perf_counter()
    threads = threads or len(os.sched_getaffinity(0))
    bar = images_bar("indexing", len(listing.paths), shown=progress)
    with silent_codecs(), ThreadPoolExecutor(threads) as pool, bar as advance:
        try:
            for start in range(0, len(listing.paths), CHUNK):
                paths = listing.paths[start : start + CHUNK]
                for i, (path, (*numbers, reason)) in enumerate(zip(paths, pool.map(examine, paths)), start):
                    rows.numbers[i] = listing.labels[i], *numbers
                    rows.paths.append(path)
                    rows.reasons.append(reason)
                    advance()
        except BaseException:  # told to stop: the files that are waiting are not looked at first
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return time.perf_counter() - started


def _examiner(root: Path, known: Rows) -> Callable[[str], tuple[int, int, int, int, str]]:
    """A function path -> (width, height, bytes, mtime_ns, reason) for many threads."""
    place, decoded = {path: i for i, path in enumerate(known.paths)}, decoder()

    def examine(path: str) -> tuple[int, int, int, int, str]:
        try:
            with open_file(root / path) as file:
                status = os.fstat(file.fileno())
                stamp = status.st_size, status.st_mtime_ns
                if path in place and tuple(known.numbers[place[path], 3:]) == stamp:
                    return *map(int, known.numbers[place[path], 1:]), known.reasons[place[path]]
                data = file.read()
        except OSError as error:
            return 0, 0, 0, 0, f"cannot be opened: {error.strerror}"
        width, height, reason = decoded(data)
        return width, height, *stamp, reason

    return examine
