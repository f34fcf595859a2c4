"""The manifest of images in a folder or in shards: which, how large, with what label, and what cannot be read."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np

from clever_fast.errors import UserError
from clever_fast.pipelines import manifest_file
from clever_fast.pipelines.cache_files import load_or_build, short_hash
from clever_fast.pipelines.indexing import Rows, index_images
from clever_fast.pipelines.listing import Listing, class_folders, find_split, list_images, take_classes
from clever_fast.pipelines.reading import header_reader, is_dim, open_file
from clever_fast.pipelines.shards.indexing import (
    Places,
    class_names,
    fetch_manifest,
    index_shards,
    rows_of_classes,
    within,
)
from clever_fast.pipelines.shards.listing import Shards, find_shards

SAMPLED = 200  # images that are looked at for what concerns all of a data set
INTERRUPTED = "interrupted"  # stands for the listing's digest in the manifest of an index run that did not finish


@dataclass(frozen=True)
class Manifest:
    """The readable images of a class folder tree or of shards, in a fixed order; a sample's index is its row here."""

    root: Path | str  # a URL for shards that are not on this machine
    paths: list[str]  # relative to root; of samples that `shard build` wrote: as in the folder that they came from
    sizes: np.ndarray  # (n, 2) int32: width and height in pixels, after EXIF rotation
    labels: np.ndarray  # (n,) int64: index into classes
    classes: list[str]
    unreadable: dict[str, str]  # path -> reason
    fingerprint: str  # of classes, paths, sizes and labels, wherever the folder lies
    file: Path | None = None  # where it is stored
    places: Places | None = None  # where the bytes lie, if in shards
    notes: tuple[str, ...] = ()  # what of the folder is left out beside them

    def __post_init__(self):
        assert self.places is None or len(self.places.numbers) == len(self.paths), "use take() for a part of a manifest"

    @property
    def in_files(self) -> bool:
        """Whether each image is a file of its own."""
        return self.places is None

    def read(self, row: int) -> bytes:
        """A sample's encoded bytes. Threads may call it at once.

        Raises:
            OSError: they cannot be read; a ConnectionError if a store does not answer.
        """
        if not self.in_files:
            return self.places.read(row)
        with open_file(self.root / self.paths[row]) as file:
            return file.read()

    def take(self, rows: Sequence[int], fingerprint: str) -> "Manifest":
        """The manifest of some rows only."""
        return replace(
            self,
            paths=[self.paths[row] for row in rows],
            sizes=self.sizes[rows],
            labels=self.labels[rows],
            fingerprint=fingerprint,
            places=self.places and replace(self.places, numbers=self.places.numbers[rows]),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def summary(self, listed: int = 10) -> str:
        """One line of counts, one for each note, and one for each of the first `listed` unreadable files."""
        bad = len(self.unreadable)
        counts = f"{self.root}: {len(self):,} images, {len(self.classes):,} classes, {bad:,} unreadable"
        notes = [f"  note: {note}" for note in self.notes]
        lines = [f"  {path}: {reason}" for path, reason in list(self.unreadable.items())[:listed]]
        lines += [f"  and {bad - listed:,} more"] if bad > listed else []
        return "\n".join(map(manifest_file.escape, [counts, *notes, *lines]))


def dim_images(manifest: Manifest) -> tuple[list[str], int]:
    """Those of up to 200 images, and how many those are, that hold 12-bit data in 16 bits: nearly black in training."""
    rows = sorted(Random(0).sample(range(len(manifest)), min(SAMPLED, len(manifest))))
    return [manifest.paths[row] for row in rows if is_dim(manifest.read(row))], len(rows)


def dim_warning(manifest: Manifest) -> tuple[str, str] | None:
    """What is wrong and its remedy, where images are dim; see `dim_images`."""
    dim, looked_at = dim_images(manifest)
    if not dim:
        return None
    what = f"{len(dim)} of {looked_at} images hold 12-bit data in 16 bits, nearly black as they are: {dim[0]}"
    return manifest_file.escape(what), "multiply their values by 16"


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
    if shards := find_shards(data, split):
        return _open_shards(shards, classes, threads, progress, force)
    root = find_split(data, split)
    names = class_folders(root, classes)
    file = f"manifest-{short_hash(chr(0).join(names))}.tsv" if classes else "manifest.tsv"
    return index_listing(root, list_images(root, names), file, threads=threads, progress=progress, force=force)


def index_listing(
    root: Path,
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

    names = listing.classes

    def load(file: Path) -> Manifest | None:
        stored = manifest_file.load(file)
        if stored and stored[0]["listing"] == listing.digest and stored[0]["classes"] == names:
            return _manifest(root, names, stored[1], stored[0]["fingerprint"], file)
        return None

    def build(file: Path | None) -> Manifest:
        return _index_folder(root, names, listing, file, threads, progress, force)

    return replace(_not_empty(load_or_build(root, file_name, load, build, force=force)), notes=listing.notes)


def _open_shards(shards: Shards, subset: Path | None, threads: int, progress: bool, force: bool) -> Manifest:
    root, shard_names = shards.store.place, list(shards.sizes)
    name = "manifest.tsv" if shards.index else f"manifest-{short_hash(chr(0).join(shard_names))}.tsv"

    def load(file: Path) -> tuple[dict, Rows, Path] | None:
        header, rows = manifest_file.load(file) or ({}, Rows.reserve())
        if header.get("listing") != shards.digest or not within(rows, len(shard_names), len(header["classes"])):
            return None
        if isinstance(root, Path) and file.stat().st_mtime_ns < shards.store.newest(shard_names):
            return None  # a shard was replaced by another of the same length
        return header, rows, file

    def build(file: Path | None) -> tuple[dict, Rows, Path | None]:
        if (
            file
            and isinstance(root, str)
            and not force
            and fetch_manifest(shards, name, file)
            and (found := load(file))
        ):
            return found
        rows, seconds = index_shards(shards, header_reader(), threads=threads, progress=progress)
        if progress:
            print(f"indexed {len(rows.paths):,} samples in {seconds:.1f} s, {len(rows.paths) / seconds:,.0f} samples/s")
        return *_keep(file, class_names(shards, rows), shards.digest, rows), file

    header, rows, file = load_or_build(root, name, load, build, force=force)
    names, fingerprint = header["classes"], header["fingerprint"]
    if subset:
        names = take_classes(names, subset, root)
        rows = rows_of_classes(rows, [header["classes"].index(name) for name in names])
        fingerprint = manifest_file.fingerprint(names, rows)
    return _not_empty(_manifest(root, names, rows, fingerprint, file, shards))


def _not_empty(manifest: Manifest) -> Manifest:
    if not len(manifest):
        if not manifest.unreadable:
            raise UserError(f"{manifest.root} holds no samples of these classes")
        path, reason = next(iter(manifest.unreadable.items()))
        bad = len(manifest.unreadable)
        raise UserError(f"none of the {bad:,} images of {manifest.root} can be read; {path}: {reason}")
    return manifest


def _index_folder(
    root, names, listing: Listing, file: Path | None, threads: int, progress: bool, force: bool
) -> Manifest:
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
    header, rows = _keep(file, names, listing.digest, rows)
    return _manifest(root, names, rows, header["fingerprint"], file)


def _keep(file: Path | None, names: list[str], listing: str, rows: Rows) -> tuple[dict, Rows]:
    """Saves a manifest where that is possible; returns its header and rows."""
    if file:
        try:
            return manifest_file.save(file, names, listing, rows), rows
        except OSError as error:
            print(f"cannot keep the manifest in {file}: {error.strerror}; the next run will index again")
    return manifest_file.header(names, listing, rows), rows


def _manifest(
    root: Path | str, names: list[str], rows: Rows, fingerprint: str, file: Path | None, shards: Shards | None = None
) -> Manifest:
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
        shards and Places(shards, list(shards.sizes), rows.numbers[ok][:, [4, 5, 3]]),
    )
