"""The encoded images of batch after batch: paths that DALI reads by itself, or the bytes of members of shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from clever_fast.pipelines.decoding import path_bytes
from clever_fast.pipelines.manifest import Manifest

BATCHES_AHEAD = 2


def encoded(manifest: Manifest, batches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """For each batch of rows, what `decoding.decode` takes of every image, (n,) uint8."""
    if manifest.in_files:
        for rows in batches:
            yield [path_bytes(manifest.root / manifest.paths[row]) for row in rows]
    else:
        for batch in read_ahead(manifest.read, batches, manifest.places.shards.store.readers):
            yield [np.frombuffer(data, np.uint8) for data in batch]


def read_ahead(read: Callable[[int], bytes], batches: Iterable[np.ndarray], readers: int) -> Iterator[list[bytes]]:
    """The bytes of each batch of rows, in order, read by threads that are up to two batches ahead.

    Raises what `read` raises, at the batch that it belongs to.
    """
    pool, pending = ThreadPoolExecutor(readers, thread_name_prefix="reading"), deque[list[Future]]()
    try:
        for rows in batches:
            pending.append([pool.submit(read, int(row)) for row in rows])
            if len(pending) > BATCHES_AHEAD:
                yield [future.result() for future in pending.popleft()]
        while pending:
            yield [future.result() for future in pending.popleft()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
