"""`clever-fast convert`: public archives as folders of images."""

import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clever_fast.errors import UserError
from clever_fast.progress import images_bar

BATCHES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
ROW = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes


def cifar10(archive: Path, out: Path) -> None:
    """Turns the official binary archive of CIFAR-10 into OUT/train/CLASS/*.png and OUT/test/CLASS/*.png.

    OUT appears only when it is whole.

    Args:
        archive: cifar-10-binary.tar.gz, read without unpacking it.
        out: Folder to write, which must not exist.
    """
    if out.exists():
        raise UserError(f"{out} exists: remove it or name another folder")
    if not archive.is_file():
        raise UserError(f"no such archive: {archive}; expected cifar-10-binary.tar.gz")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
    try:
        count = _convert(archive, partial)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # a full disk or the like, not the archive
            raise UserError(f"cannot convert {archive} to {out}: {error.strerror}") from None
        reason = str(error).splitlines()[0].rstrip(":")
        raise UserError(f"{archive} is damaged ({reason}): expected cifar-10-binary.tar.gz, whole") from None
    os.rename(partial, out)
    print(f"{out}: {count:,} images")


def _convert(archive: Path, out: Path) -> int:
    from PIL import Image

    batches, classes = _read(archive)
    images = [
        (split, label, row) for split, names in BATCHES.items() for name in names for label, row in _rows(batches[name])
    ]
    for split in BATCHES:
        for name in classes:
            (out / split / name).mkdir(parents=True)

    def write(job: tuple[int, tuple[str, int, np.ndarray]]) -> None:
        number, (split, label, row) = job
        pixels = row.reshape(3, 32, 32).transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(pixels)).save(out / split / classes[label] / f"{number:05d}.png")

    with images_bar("converting", len(images)) as advance, ThreadPoolExecutor() as pool:
        for _ in pool.map(write, _numbered(images)):
            advance()
    return len(images)


def _read(archive: Path) -> tuple[dict[str, bytes], list[str]]:
    """The six batches and the class names, checked."""
    wanted, found = {name for names in BATCHES.values() for name in names} | {"batches.meta.txt"}, {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if name in wanted and member.isfile():
                found[name] = tar.extractfile(member).read()
    if missing := sorted(wanted - set(found)):
        raise UserError(
            f"{archive} has no {missing[0]}: expected cifar-10-binary.tar.gz, the binary version of CIFAR-10"
        )
    classes = found.pop("batches.meta.txt").decode().split()
    for name, data in found.items():
        if not data or len(data) % ROW or max(data[::ROW]) >= len(classes):
            raise UserError(f"{name} of {archive} is not rows of {ROW:,} bytes with labels below {len(classes)}: "
                            "expected cifar-10-binary.tar.gz")  # fmt: skip
    return found, classes


def _rows(batch: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (label, 3072 bytes) for each image."""
    for row in np.frombuffer(batch, np.uint8).reshape(-1, ROW):
        yield int(row[0]), row[1:]


def _numbered(images: list) -> Iterator[tuple[int, tuple]]:
    """Counts from 0 in each split, in the order of the archive."""
    counts = dict.fromkeys(BATCHES, 0)
    for image in images:
        yield counts[image[0]], image
        counts[image[0]] += 1
