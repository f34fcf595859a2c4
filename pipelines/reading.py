"""The manifest of a folder of images: what is there, how large it is, what it is labelled, and what cannot be read."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from clever_fast.errors import UserError
from clever_fast.pipelines import manifest_file
from clever_fast.pipelines.indexing import Rows, index_images
from clever_fast.pipelines.listing import Listing, class_folders, find_split, list_images

INTERRUPTED = "interrupted"  # stands for the listing's digest in the manifest of an index run that did not finish


@dataclass(frozen=True)
class Manifest:
    """The readable images of a class folder tree, in a fixed order; a sample's index is its row here."""

    root: Path
    paths: list[str]  # relative to root
    sizes: np.ndarray  # (n, 2) int32: width and height in pixels, after EXIF rotation
    labels: np.ndarray  # (n,) int64: index into classes
    classes: list[str]
    unreadable: dict[str, str]  # path -> reason
    fingerprint: str  # of classes, paths, sizes and labels, wherever the folder lies
    file: Path | None = None  # where it is stored

    def __len__(self) -> int:
        return len(self.paths)

    def summary(self, listed: int = 10) -> str:
        """One line of counts, and one for each of the first `listed` unreadable files."""
        bad = len(self.unreadable)
        counts = f"{self.root}: {len(self):,} images, {len(self.classes):,} classes, {bad:,} unreadable"
        lines = [f"  {path}: {reason}" for path, reason in list(self.unreadable.items())[:listed]]
        more = bad - len(lines)
        return "\n".join(map(manifest_file.escape, [counts, *lines, *([f"  and {more:,} more"] if more else [])]))


def open_manifest(
    data: Path,
    *,
    split: str = "train",
    classes: Path | None = None,
    threads: int = 0,
    progress: bool = False,
    force: bool = False,
) -> Manifest:
    """Loads the manifest of a folder of class folders, after indexing what is new or has changed.

    A file added, removed or renamed is noticed. One overwritten in place is not: use `force`. The manifest lies in
    `.clever_fast` beside the class folders, or in the user's cache folder if that cannot be written. Several processes
    may call this at once: one indexes, the others wait for it and load.

    Args:
        data: folder of class folders, or of `<split>/<class>/` folders.
        split: the split to take, if there are splits; `val` and `test` stand in for one another.
        classes: text file with one class folder per line, for a subset.
        threads: decoding threads, 0 for one per core.
        progress: show a bar while indexing and print its result; nothing where there is nothing to do.
        force: decode every file again.

    Raises:
        UserError: nothing there to learn from; the message says what is missing.
    """
    root = find_split(data, split)
    names = class_folders(root, classes)
    file = f"manifest-{_hash(chr(0).join(names))}.tsv" if classes else "manifest.tsv"
    return index_listing(root, names, list_images(root, names), file, threads=threads, progress=progress, force=force)


def index_listing(
    root: Path,
    names: list[str],
    listing: Listing,
    file_name: str,
    *,
    threads: int = 0,
    progress: bool = False,
    force: bool = False,
) -> Manifest:
    """The manifest of files that are listed already, from where it is kept as `file_name`, or after indexing them.

    Raises:
        UserError: none of the files can be read.
    """
    places = [root / ".clever_fast" / file_name, _cache(root) / file_name]
    manifest = None if force else _load(root, names, listing, places)
    if manifest is None:
        with _exclusive(places) as file:
            # Another process may have indexed while this one waited for the lock.
            manifest = None if force else _load(root, names, listing, places)
            if manifest is None:
                manifest = _build(root, names, listing, file, threads, progress, force)
    if not len(manifest):
        path, reason = next(iter(manifest.unreadable.items()))
        raise UserError(f"none of the {len(manifest.unreadable):,} images of {root} can be read; {path}: {reason}")
    return manifest


def _load(root: Path, names: list[str], listing: Listing, places: list[Path]) -> Manifest | None:
    for file in places:
        stored = manifest_file.load(file)
        if stored and stored[0]["listing"] == listing.digest and stored[0]["classes"] == names:
            return _manifest(root, names, stored[1], stored[0]["fingerprint"], file)
    return None


def _build(root, names, listing: Listing, file: Path | None, threads: int, progress: bool, force: bool) -> Manifest:
    header, known = (manifest_file.load(file) if file and not force else None) or (None, Rows.reserve())
    if progress and header and header["listing"] != INTERRUPTED:
        print(f"{root} has changed since it was indexed")
    rows = Rows.reserve(len(listing.paths))
    try:
        seconds = index_images(root, listing, rows, known=known, threads=threads, progress=progress)
    except BaseException:  # keep what is done: the next call continues from there
        if file and len(rows.paths) > len(known.paths):
            with suppress(OSError):
                manifest_file.save(file, names, INTERRUPTED, rows)
        raise
    if progress:
        speed = "" if header else f", {len(rows.paths) / seconds:,.0f} images/s"
        print(f"{'checked' if header else 'indexed'} {len(rows.paths):,} images in {seconds:.1f} s{speed}")
    try:
        fingerprint = manifest_file.save(file, names, listing.digest, rows)["fingerprint"] if file else None
    except OSError as error:
        print(f"cannot keep the manifest in {file}: {error.strerror}; the next run will index again")
        file = fingerprint = None
    return _manifest(root, names, rows, fingerprint or manifest_file.fingerprint(names, rows), file)


def _manifest(root: Path, names: list[str], rows: Rows, fingerprint: str, file: Path | None) -> Manifest:
    ok = [i for i, reason in enumerate(rows.reasons) if not reason]
    return Manifest(
        root,
        [rows.paths[i] for i in ok],
        rows.numbers[ok, 1:3].astype(np.int32),
        rows.numbers[ok, 0],
        names,
        {path: reason for path, reason in zip(rows.paths, rows.reasons) if reason},
        fingerprint,
        file,
    )


@contextmanager
def _exclusive(places: list[Path]) -> Iterator[Path | None]:
    """Holds the lock of the first place that can be written and yields that place; None if there is none."""
    for file in places:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = open(file.with_suffix(".lock"), "w")  # noqa: SIM115
        except OSError:
            continue
        with lock:
            with suppress(OSError):  # a file system without locks: the rename is atomic, so work is only done twice
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield file
        return
    yield None


def _cache(root: Path) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "clever_fast" / _hash(str(root.resolve()))


def _hash(text: str) -> str:
    return blake2b(os.fsencode(text), digest_size=8).hexdigest()
