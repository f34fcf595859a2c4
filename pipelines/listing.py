"""Which image files a folder of class folders holds: one directory listing, without a look at any file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path

from clever_fast.errors import UserError

# Also what DALI cannot decode (GIF, AVIF, HEIC): the manifest then says why such a file is left out.
FORMATS = "jpg jpeg jpe jfif png webp bmp tif tiff ppm pgm pbm pnm jp2 j2k gif avif heic"
EXTENSIONS = frozenset(f".{name}" for name in FORMATS.split())
SPLITS = {"train": ("train",), "val": ("val", "test"), "test": ("test", "val")}  # the folders that stand for a split


@dataclass(frozen=True)
class Listing:
    """The candidate files of some class folders, ordered by class and then by path."""

    paths: list[str]  # relative to the root
    labels: list[int]
    digest: str  # changes with every file added, removed or renamed, not with one overwritten in place


def find_split(data: Path, split: str) -> Path:
    """The folder that holds the class folders of `split`: `data/<split>`, or `data` itself if it has no splits.

    `val` falls back to `test` and the other way round. A folder counts as a split only if it holds folders, so that a
    class may be called "train".

    Raises:
        UserError: `data` is not a folder, or has splits but not this one.
    """
    data = Path(data)
    if data.is_file():
        raise UserError(f"{data} is a file: unpack it first, then name the folder that holds one folder per class")
    if not data.is_dir():
        parent = data.absolute().parent
        near = get_close_matches(data.name, os.listdir(parent), 1) if parent.is_dir() else []
        raise UserError(f"no such folder: {data}" + (f"; did you mean {data.parent / near[0]}?" if near else ""))
    wanted = SPLITS.get(split, (split,))
    for name in wanted:
        if (data / name).is_dir() and subfolders(data / name):
            return data / name
    others = [name for name in SPLITS if (data / name).is_dir() and subfolders(data / name)]
    if others:
        raise UserError(f"{data} has {' and '.join(others)}, but no {' or '.join(wanted)} with class folders")
    return data


def class_folders(root: Path, subset: Path | None = None) -> list[str]:
    """The sorted names of the class folders in `root`; a class's label is its place here.

    Args:
        root: folder of class folders.
        subset: text file that limits the classes, one class folder per line; blank lines and # comments are ignored.

    Raises:
        UserError: no class folder, an unreadable `subset`, or a name in it that `root` does not have.
    """
    folders = subfolders(root)
    if not folders:
        loose = any(entry.suffix.lower() in EXTENSIONS for entry in root.iterdir())
        raise UserError(f"{root} has {'images but ' if loose else ''}no class folders: put them in {root}/CLASS/*.jpg")
    return folders if subset is None else take_classes(folders, subset, root)


def take_classes(classes: list[str], subset: Path, root: Path | str) -> list[str]:
    """Those of `classes` that the text file `subset` names; see `class_folders`. root: where they are, for errors."""
    try:
        lines = Path(subset).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"cannot read the class list {subset}: {error.strerror}") from None
    names = sorted({name for line in lines if (name := line.split("#")[0].strip())})
    if not names:
        raise UserError(f"the class list {subset} names no class: write one class folder per line")
    known = set(classes)
    for name in names:
        if name not in known:
            near = get_close_matches(name, classes, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(classes[:3])} ..."
            raise UserError(f"the class {name!r} of {subset} is not a folder of {root}: {hint}")
    return names


def list_images(root: Path, classes: list[str]) -> Listing:
    """Lists the candidate files below the class folders, following symbolic links.

    Raises:
        UserError: a folder cannot be listed, or there is no candidate file.
    """
    digest, paths, labels = blake2b(digest_size=16), [], []
    try:
        for label, name in enumerate(classes):
            found = []
            for folder, modified, files in _walk(root, name, frozenset()):
                digest.update(os.fsencode(f"{folder}\0{modified}\0" + "\0".join(files) + "\0\0"))
                found += [f"{folder}/{file}" for file in files]
            paths += sorted(found)
            labels += [label] * len(found)
    except OSError as error:
        raise UserError(f"cannot list {error.filename}: {error.strerror}") from None
    if not paths:
        raise UserError(f"the {len(classes)} class folders of {root} hold no images: put images in {root}/CLASS/*.jpg")
    return Listing(paths, labels, digest.hexdigest())


def subfolders(root: Path) -> list[str]:
    """The sorted names of the folders in `root` but for hidden ones."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError as error:
        raise UserError(f"cannot list {root}: {error.strerror}") from None


def _walk(root: Path, folder: str, ancestors: frozenset) -> Iterator[tuple[str, int, list[str]]]:
    """Yields (relative folder, its mtime in ns, its sorted image files) for `folder` and all below it."""
    status = os.stat(root / folder)
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:  # a link to a folder above itself
        return
    files, below = [], []
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                below.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                files.append(entry.name)
    yield folder, status.st_mtime_ns, sorted(files)
    for name in sorted(below):
        yield from _walk(root, f"{folder}/{name}", ancestors | {identity})
