"""Looks at everything in a set of shards: each checksum, each header, each image decoded."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from clever_fast.pipelines.reading import decoder
from clever_fast.pipelines.shards.indexing import index_shards
from clever_fast.pipelines.shards.listing import Shards
from clever_fast.pipelines.shards.storage import checksum


def verify(shards: Shards, *, threads: int = 0, progress: bool = False) -> tuple[int, dict[str, str]]:
    """How many samples are sound, and what is wrong with the others and with whole shards, by their names.

    Raises:
        ConnectionError: a store does not answer.
    """
    rows, _ = index_shards(shards, decoder(), threads=threads, progress=progress, what="verifying")
    faults = dict(_wrong_bytes(shards)) | {path: reason for path, reason in zip(rows.paths, rows.reasons) if reason}
    return sum(not reason for reason in rows.reasons), faults


def _wrong_bytes(shards: Shards) -> Iterator[tuple[str, str]]:
    """The shards that are not as `shards.json` says, if there is one."""
    if not shards.index:
        return

    def fault(entry: dict) -> str:
        name, size = entry["name"], shards.sizes.get(entry["name"])
        if size is None:
            return "missing"
        if size != entry["bytes"]:
            return f"{size:,} of {entry['bytes']:,} bytes"
        same = checksum(shards.store, name, size) == entry["sha256"]
        return "" if same else "its checksum is not the one it was built with"

    entries = shards.index["shards"]
    with ThreadPoolExecutor(shards.store.readers) as pool:
        yield from ((entry["name"], reason) for entry, reason in zip(entries, pool.map(fault, entries)) if reason)
