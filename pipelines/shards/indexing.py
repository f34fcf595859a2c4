"""What a set of shards holds: one pass over the tar headers and, of each image, a look at its bytes."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from clever_fast.pipelines.indexing import Rows
from clever_fast.pipelines.listing import EXTENSIONS
from clever_fast.pipelines.reading import silent_codecs
from clever_fast.pipelines.shards.archive import ArchiveError, Member, members
from clever_fast.pipelines.shards.listing import Shards
from clever_fast.pipelines.shards.storage import PIECE
from clever_fast.progress import bytes_bar

Examine = Callable[[bytes], tuple[int, int, str]]  # encoded image -> width, height, why it cannot be read
LONGEST_TEXT = 1 << 20  # bytes of a label or a description
COLUMNS = 6


@dataclass(frozen=True)
class Places:
    """Where the bytes of each sample lie."""

    shards: Shards
    names: list[str]
    numbers: np.ndarray  # (n, 3) int64: shard, offset and bytes

    def read(self, row: int) -> bytes:
        shard, offset, size = map(int, self.numbers[row])
        return self.shards.store.read(self.names[shard], offset, size)


@dataclass(slots=True)
class _Sample:
    key: str
    shard: int
    path: str = ""
    label: int = -1
    width: int = 0
    height: int = 0
    size: int = 0
    offset: int = 0
    reason: str = ""


def index_shards(
    shards: Shards, examine: Examine, *, threads: int = 0, progress: bool = False, what: str = "indexing"
) -> tuple[Rows, float]:
    """A row for every sample, and one for everything that is at fault, by key and then by shard; and seconds taken.

    examine: of an image's bytes, in `threads` threads, 0 for one per core. A shard that cannot be read on is a fault.

    Raises:
        ConnectionError: a store does not answer.
    """
    started = time.perf_counter()
    bar = bytes_bar(what, sum(shards.sizes.values()), shown=progress)
    threads = threads or len(os.sched_getaffinity(0))
    with silent_codecs(), bar as advance, ThreadPoolExecutor(threads) as pool:
        scan = partial(_scan, shards, examine, advance)
        samples = [sample for found in pool.map(scan, range(len(shards.sizes))) for sample in found]
    samples.sort(key=lambda sample: (sample.key, sample.shard))
    if shards.index:  # keys are unique in what `shard build` wrote
        for before, sample in pairwise(samples):
            if before.key == sample.key and not sample.reason:
                sample.reason = f"the key {sample.key} is also in {list(shards.sizes)[before.shard]}"
    rows = Rows([s.path for s in samples], np.zeros((len(samples), COLUMNS), np.int64), [s.reason for s in samples])
    for i, s in enumerate(samples):
        rows.numbers[i] = s.label, s.width, s.height, s.size, s.shard, s.offset
    return rows, time.perf_counter() - started


def class_names(shards: Shards, rows: Rows) -> list[str]:
    """The classes by label; of shards from elsewhere, which do not name them, the labels themselves."""
    if shards.index:
        return shards.index["classes"]
    return [str(label) for label in range(1 + int(rows.numbers[:, 0].max(initial=-1)))]


def rows_of_classes(rows: Rows, labels: list[int]) -> Rows:
    """The rows of some labels, which count anew from 0, and those at fault without a label."""
    anew = np.full(1 + max(int(rows.numbers[:, 0].max()), *labels), -1)
    anew[labels] = np.arange(len(labels))
    old = rows.numbers[:, 0]
    numbers = np.column_stack([np.where(old < 0, -1, anew[old]), rows.numbers[:, 1:]])
    kept = np.flatnonzero((numbers[:, 0] >= 0) | (old < 0))
    return Rows([rows.paths[i] for i in kept], numbers[kept], [rows.reasons[i] for i in kept])


def within(rows: Rows, shards: int, classes: int) -> bool:
    """Whether every readable row names a shard and a class that there are."""
    label, _, _, size, shard, offset = rows.numbers[[not reason for reason in rows.reasons]].T
    return bool(((label >= 0) & (label < classes) & (shard >= 0) & (shard < shards) & (size > 0) & (offset > 0)).all())


def fetch_manifest(shards: Shards, name: str, file: Path) -> bool:
    """Copies the manifest that lies with remote shards to `file`; False if there is none."""
    path = f".clever_fast/{name}"
    if not shards.store.has(path):
        return False
    file.write_bytes(shards.store.read(path))
    return True


def _scan(shards: Shards, examine: Examine, advance: Callable[[int], None], number: int) -> list[_Sample]:
    name, length = list(shards.sizes.items())[number]
    samples, seen, faults = {}, set(), []

    def blame(what: str, reason: str) -> None:
        faults.append(_Sample("", number, f"{name}/{what}" if what else name, reason=reason))

    try:
        read = _in_large_pieces(partial(shards.store.read, name), length, advance)
        for member in members(read, length):
            key, extension = _key(member.name)
            if member.fault:
                blame(member.name, member.fault)
            elif member.name in seen:
                blame(member.name, "a second member of this name")
            elif not key.rpartition("/")[2]:  # hidden, as macOS adds
                continue
            else:
                seen.add(member.name)
                sample = samples.setdefault(key, _Sample(key, number))
                if fault := _take(sample, member, extension, f"{name}/{member.name}", read, examine, shards):
                    blame(member.name, fault)
    except (ArchiveError, FileNotFoundError) as error:
        blame("", "not found" if isinstance(error, FileNotFoundError) else str(error))
    for key, sample in samples.items():
        if not sample.path:
            sample.path, sample.reason = f"{name}/{key}", "no image"
        elif not sample.reason and sample.label < 0:
            sample.reason = "no label: its .cls is missing"
        elif shards.index and not sample.reason and sample.label >= len(shards.index["classes"]):
            sample.reason = f"its label {sample.label} is not one of {len(shards.index['classes'])} classes"
        if sample.reason:
            sample.width = sample.height = 0
    return [*samples.values(), *faults]


def _take(
    sample: _Sample, member: Member, extension: str, path: str, read: Callable, examine: Examine, shards: Shards
) -> str:
    """Adds what a member says to its sample; returns what is at fault with a member that is passed over."""
    if f".{extension}" in EXTENSIONS:
        if sample.size or sample.offset:
            return "a second image of one sample"
        sample.path = sample.path or path
        sample.offset, sample.size = member.offset, member.size
        sample.width, sample.height, sample.reason = examine(read(member.offset, member.size))
    elif extension in ("cls", "json") and member.size > LONGEST_TEXT:
        return f"{member.size:,} bytes are too many"
    elif extension == "cls":
        text = read(member.offset, member.size).decode("ascii", "replace").strip()
        if not re.fullmatch(r"[0-9]{1,9}", text):
            return f"its label {text[:20]!r} is not a whole number"
        sample.label = int(text)
    elif extension == "json" and shards.index:
        try:
            sample.path = json.loads(read(member.offset, member.size))["path"] + ""
        except (ValueError, KeyError, TypeError, RecursionError):
            return "does not tell the image's path"
    return ""


def _key(name: str) -> tuple[str, str]:
    """The sample and the kind of a member, as WebDataset splits them: at the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _in_large_pieces(read: Callable, length: int, advance: Callable[[int], None]) -> Callable[[int, int], bytes]:
    """`read` for small pieces in ascending order out of a few large ones."""
    start, held = 0, b""

    def piece(offset: int, size: int) -> bytes:
        nonlocal start, held
        if not start <= offset <= offset + size <= start + len(held):
            start, held = offset, read(offset, max(size, min(PIECE, length - offset)))
            advance(len(held))
        return held[offset - start : offset - start + size]

    return piece
