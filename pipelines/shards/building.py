"""Writes the images of a manifest as tar shards: the same bytes for the same images, wherever and whenever."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from clever_fast.errors import UserError
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.parameters import PERMUTATION, generator
from clever_fast.pipelines.read_ahead import read_ahead
from clever_fast.pipelines.shards import archive
from clever_fast.pipelines.shards.listing import INDEX, VERSION, read_index
from clever_fast.pipelines.shards.storage import Local, checksum
from clever_fast.progress import images_bar

READERS, READ_TOGETHER = 8, 64  # threads that read images ahead of the one that writes, and how many at a time
DIGITS = 8  # of a key: the sample's row in the manifest, so that sorted keys restore the manifest's order


def build_shards(
    manifest: Manifest, out: Path, *, name: str, bytes_per_shard: int, seed: int | None, progress: bool = False
) -> int:
    """Writes OUT/NAME-{000000..}.tar and OUT/shards.json; returns how many shards were there already.

    A shard appears under its name when it is whole. A call after an interruption checks those that are there against
    their checksums and writes the others.

    Args:
        manifest: of a folder of images; what is unreadable is left out.
        bytes_per_shard: an upper bound; an image that is larger has a shard of its own.
        seed: of the order of the samples in the shards; None for the manifest's, class by class.

    Raises:
        UserError: `out` holds other shards, cannot be written, or an image has changed since it was indexed.
    """
    if not manifest.in_files:
        raise UserError(f"{manifest.root} holds shards already: name a folder of images")
    build = {"data": manifest.fingerprint, "name": name, "bytes_per_shard": bytes_per_shard, "seed": seed}
    try:
        return _build(manifest, out, build, progress)
    except OSError as error:
        raise UserError(f"cannot build shards in {out}: {error}; what is finished stays for the next call") from None


def _build(manifest: Manifest, out: Path, build: dict, progress: bool) -> int:
    out.mkdir(parents=True, exist_ok=True)
    known, store = _known(out, build), Local(out)
    lengths = [(manifest.root / path).stat().st_size for path in manifest.paths]
    order = np.arange(len(manifest))
    if build["seed"] is not None:
        order = generator(build["seed"], 0, 0, PERMUTATION).permutation(len(manifest))
    entries, kept = [], 0
    with images_bar("building", len(manifest), shown=progress) as advance:
        for number, rows in enumerate(_plan(manifest, order, lengths, build["bytes_per_shard"])):
            file = out / f"{build['name']}-{number:06d}.tar"
            entry = known.get(file.name)
            if entry and file.exists() and checksum(store, file.name, file.stat().st_size) == entry["sha256"]:
                kept += 1
                for _ in rows:
                    advance()
            else:
                entry = _write(manifest, file, rows, lengths, advance)
            entries.append(entry)
            index = {"clever_fast shards": VERSION, "complete": False, "build": build, "classes": manifest.classes}
            _save(out, index | {"samples": sum(e["samples"] for e in entries), "shards": entries})
    _save(out, json.loads((out / INDEX).read_text()) | {"complete": True})
    return kept


def _known(out: Path, build: dict) -> dict[str, dict]:
    """The shards that an earlier call of the same build has finished, by name."""
    index = read_index(Local(out))
    if index and index.get("build") == build:
        return {entry["name"]: entry for entry in index["shards"]}
    if index or any(out.glob("*.tar")):
        raise UserError(f"{out} holds other shards: remove them, or name another folder")
    return {}


def _plan(manifest: Manifest, order: np.ndarray, lengths: list[int], limit: int) -> Iterator[list[int]]:
    """The rows of each shard."""
    rows, size = [], len(archive.END)
    for row in map(int, order):
        texts = _texts(manifest, row)
        more = sum(map(archive.stored_size, [lengths[row], *map(len, texts.values())]))
        if rows and size + more > limit:
            yield rows
            rows, size = [], len(archive.END)
        rows.append(row)
        size += more
    yield rows


def _texts(manifest: Manifest, row: int) -> dict[str, bytes]:
    """The members of a sample beside its image, by their endings."""
    label, (width, height) = int(manifest.labels[row]), map(int, manifest.sizes[row])
    about = {"class": manifest.classes[label], "height": height, "path": manifest.paths[row], "width": width}
    return {"cls": str(label).encode(), "json": json.dumps(about).encode()}


def _write(manifest: Manifest, file: Path, rows: list[int], lengths: list[int], advance: Callable[[], None]) -> dict:
    """One shard, and its entry in the index."""
    digest, temporary = sha256(), file.with_suffix(".tar.partial")
    batches = (np.array(rows[i : i + READ_TOGETHER]) for i in range(0, len(rows), READ_TOGETHER))
    images = (image for batch in read_ahead(manifest.read, batches, READERS) for image in batch)
    with temporary.open("wb") as out:

        def write(data: bytes) -> None:
            out.write(data)
            digest.update(data)

        for row, image in zip(rows, images):
            if len(image) != lengths[row]:
                raise UserError(f"{manifest.root / manifest.paths[row]} changed while it was read: build again")
            kind = Path(manifest.paths[row]).suffix.lower()
            members = {"jpg" if kind in (".jpeg", ".jpe", ".jfif") else kind[1:]: image} | _texts(manifest, row)
            for ending, data in members.items():
                write(archive.header(f"{row:0{DIGITS}d}.{ending}", len(data)))
                write(data)
                write(archive.padding(len(data)))
            advance()
        write(archive.END)
        out.flush()
        os.fsync(out.fileno())
        size = out.tell()
    os.replace(temporary, file)
    return {"name": file.name, "bytes": size, "samples": len(rows), "sha256": digest.hexdigest()}


def _save(out: Path, index: dict) -> None:
    temporary = out / f"{INDEX}.partial"
    temporary.write_text(json.dumps(index, indent=1) + "\n")
    os.replace(temporary, out / INDEX)
