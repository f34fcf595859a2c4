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
SPLITS = {"train": ("train",), "val": ("val", "test"), "test": ("test", "val")}  # the splits that stand for a split
SPELLINGS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
OF_THE_SYSTEM = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")  # thumbnails at most
NAMED = 3  # folders or files that a note names


@dataclass(frozen=True)
class Listing:
    """The candidate files of some class folders, ordered by class and then by path."""

    classes: list[str]
    paths: list[str]  # relative to the root
    labels: list[int]  # indices into classes
    digest: str  # changes with every file added, removed or renamed, not with one overwritten in place
    notes: tuple[str, ...] = ()  # what of the folder is left out


def split_folders(data: Path) -> dict[str, Path]:
    """The folders of `data` that are its splits, in any usual spelling (`Train`, `validation`), by the split's name.

    A folder counts as a split only if it holds folders, so that a class may be called "train".

    Raises:
        UserError: two spellings of one split, or splits that hold images without class folders.
    """
    found = _named_as_splits(data)
    for split, names in found.items():
        if len(names) > 1:
            raise UserError(f"{data} has {' and '.join(names)}, two folders of one split ({split}): rename one of them")
    whole = {split: data / names[0] for split, names in found.items() if subfolders(data / names[0])}
    flat = [names[0] for names in found.values() if not subfolders(data / names[0])]
    if flat and (len(found) > 1 or whole) and any(map(_is_image, _files(data / flat[0]))):
        raise UserError(
            f"{data / flat[0]} holds images but no class folders: put them in {data / flat[0]}/CLASS/*.jpg, with one "
            "CLASS for all of them where there are no labels"
        )
    return whole


def _named_as_splits(data: Path) -> dict[str, list[str]]:
    """The names of folders that are spelled as a split, by the split."""
    spelled = {word: split for split, words in SPELLINGS.items() for word in words}
    found: dict[str, list[str]] = {}
    for name in subfolders(data):
        if split := spelled.get(name.casefold()):
            found.setdefault(split, []).append(name)
    return {split: found[split] for split in SPELLINGS if split in found}


def find_split(data: Path, split: str) -> Path:
    """The folder that holds the class folders of `split`: `data/<split>`, or `data` itself if it has no splits.

    `val` falls back to `test` and the other way round; see `split_folders` for what counts as a split.

    Raises:
        UserError: `data` is not a folder, has splits but not this one, or holds folders that have splits themselves.
    """
    data = Path(data)
    if data.is_file():
        raise UserError(f"{data} is a file: unpack it first, then name the folder that holds one folder per class")
    if not data.is_dir():
        parent = data.absolute().parent
        near = get_close_matches(data.name, os.listdir(parent), 1) if parent.is_dir() else []
        raise UserError(f"no such folder: {data}" + (f"; did you mean {data.parent / near[0]}?" if near else ""))
    found, wanted = split_folders(data), SPLITS.get(split, (split,))
    for name in wanted:
        if name in found:
            return found[name]
    if found:
        raise UserError(f"{data} has {' and '.join(found)}, but no {' or '.join(wanted)} with class folders")
    for name in subfolders(data):
        if len(_named_as_splits(data / name)) > 1:
            raise UserError(
                f"{data / name} has splits of its own, which would be one class: did you mean {data / name}?"
            )
    return data


def refuse_inside(folder: Path, root: Path | str, option: str) -> None:
    """Raise UserError where what is written to `folder` would be part of the data in `root` at the next start."""
    if isinstance(root, Path) and folder.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{option} {folder} lies inside the data {root}, and would be taken for a class: give another")


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
        loose = any(map(_is_image, _files(root)))
        raise UserError(f"{root} has {'images but ' if loose else ''}no class folders: put them in {root}/CLASS/*.jpg")
    return folders if subset is None else take_classes(folders, subset, root)


def take_classes(classes: list[str], subset: Path, root: Path | str) -> list[str]:
    """Those of `classes` that the text file `subset` names; see `class_folders`. root: where they are, for errors."""
    try:
        lines = Path(subset).read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
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

    A folder without any is no class; it is named in the listing's notes, as are files beside the class folders.

    Raises:
        UserError: a folder cannot be listed, or there is no candidate file.
    """
    digest, kept, paths, labels = blake2b(digest_size=16), [], [], []
    try:
        for name in classes:
            found = []
            for folder, modified, files in _walk(root, name, frozenset()):
                digest.update(os.fsencode(f"{folder}\0{modified}\0" + "\0".join(files) + "\0\0"))
                found += [f"{folder}/{file}" for file in files]
            if found:
                paths += sorted(found)
                labels += [len(kept)] * len(found)
                kept.append(name)
    except OSError as error:
        raise UserError(f"cannot list {error.filename}: {error.strerror}") from None
    if not paths:
        raise UserError(f"the {len(classes)} class folders of {root} hold no images: put images in {root}/CLASS/*.jpg")
    empty = sorted(set(classes) - set(kept))
    empty += [name for name in OF_THE_SYSTEM if (root / name).is_dir()]
    notes = [f"folders without images are no classes: {_few(empty)}"] if empty else []
    if beside := sorted(filter(_is_image, _files(root))):
        notes.append(f"images beside the class folders are left out: {_few(beside)}")
    return Listing(kept, paths, labels, digest.hexdigest(), tuple(notes))


def _few(names: list[str]) -> str:
    more = len(names) - NAMED
    return f"{len(names):,} ({', '.join(names[:NAMED])}{', ...' if more > 0 else ''})"


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from None


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name in OF_THE_SYSTEM


def subfolders(root: Path) -> list[str]:
    """The sorted names of the folders in `root` but for hidden ones and those of operating systems."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if not _is_passed_over(entry.name) and entry.is_dir())
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
            if _is_passed_over(entry.name):
                continue
            if entry.is_dir():
                below.append(entry.name)
            elif _is_image(entry.name):
                files.append(entry.name)
    yield folder, status.st_mtime_ns, sorted(files)
    for name in sorted(below):
        yield from _walk(root, f"{folder}/{name}", ancestors | {identity})
