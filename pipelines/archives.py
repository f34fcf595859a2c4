"""The data sets that representations are fine-tuned on, as their official archives unpack. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

from clever_fast.errors import UserError
from clever_fast.pipelines.listing import Listing
from clever_fast.pipelines.manifest import Manifest, index_listing
from clever_fast.pipelines.matlab import read_array

Labelled = list[tuple[str, int]]  # (path of an image, its label)


@dataclass(frozen=True)
class Archive:
    """A published data set: what it unpacks to, and how its lists are read."""

    name: str
    files: tuple[str, ...]  # the official archives
    url: str
    needed: tuple[str, ...]  # what they unpack to
    read: Callable[[Path, bool], tuple[list[str], Labelled]]  # (folder, training?) -> (classes, images)


def open_archive(name: str, data: Path, split: str, *, progress: bool = False) -> Manifest:
    """The manifest of a published data set's official `split`, train or test, unpacked in the folder `data`.

    Raises:
        UserError: something is missing or is not as published; the message names the archive and its place.
    """
    archive, data = ARCHIVES[name], Path(data)
    for path in archive.needed:
        if not (data / path).exists():
            raise UserError(
                f"{data} has no {path}: unpack {' and '.join(archive.files)} of {archive.name} there "
                f"(from {archive.url}; nothing is downloaded)"
            )
    try:
        classes, images = archive.read(data, split == "train")
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise UserError(f"the lists of {archive.name} in {data} are not as published: {error}") from None
    if not images:
        raise UserError(f"the lists of {archive.name} in {data} name no image of the {split} split")
    images.sort()
    paths, labels = map(list, zip(*images))
    folders = sorted({path.rpartition("/")[0] for path in paths})
    times = [(data / folder).stat().st_mtime_ns if (data / folder).is_dir() else 0 for folder in folders]
    digest = blake2b(repr((images, times)).encode(), digest_size=16).hexdigest()
    return index_listing(data, Listing(classes, paths, labels, digest), f"{name}-{split}.tsv", progress=progress)


def _cub200(data: Path, train: bool) -> tuple[list[str], Labelled]:
    def table(name: str) -> dict[str, str]:
        return dict(_words(data / "CUB_200_2011" / f"{name}.txt"))

    paths, labels, training = table("images"), table("image_class_labels"), table("train_test_split")
    images = [(f"CUB_200_2011/images/{paths[i]}", int(labels[i]) - 1) for i in paths if (training[i] == "1") == train]
    return list(table("classes").values()), images


def _flowers102(data: Path, train: bool, *, splits: tuple[str, ...] = ("trnid",)) -> tuple[list[str], Labelled]:
    labels = read_array(data / "imagelabels.mat", "labels")
    splits = splits if train else ("tstid",)
    numbers = [int(number) for split in splits for number in read_array(data / "setid.mat", split)]
    images = [(f"jpg/image_{number:05d}.jpg", int(labels[number - 1]) - 1) for number in numbers]
    return [str(i) for i in range(1, int(labels.max()) + 1)], images


def _food101(data: Path, train: bool) -> tuple[list[str], Labelled]:
    root = data / "food-101"
    classes = (root / "meta/classes.txt").read_text().split()
    names = (root / f"meta/{'train' if train else 'test'}.txt").read_text().split()
    return classes, [(f"food-101/images/{name}.jpg", classes.index(name.split("/")[0])) for name in names]


def _pets(data: Path, train: bool) -> tuple[list[str], Labelled]:
    rows = list(_words(data / f"annotations/{'trainval' if train else 'test'}.txt"))
    labels = {name: int(number) - 1 for name, number, *_ in rows}
    names = {label: name.rpartition("_")[0] for name, label in labels.items()}
    return [names[label] for label in sorted(names)], [(f"images/{name}.jpg", label) for name, label in labels.items()]


def _words(file: Path) -> list[list[str]]:
    """The words of each line that is no comment."""
    return [line.split() for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]


FLOWERS102 = Archive(
    "Oxford Flowers-102",
    ("102flowers.tgz", "imagelabels.mat", "setid.mat"),
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    ("jpg", "imagelabels.mat", "setid.mat"),
    _flowers102,
)

ARCHIVES = {
    "cub200": Archive(
        "CUB-200-2011",
        ("CUB_200_2011.tgz",),
        "https://data.caltech.edu/records/65de6-vp158",
        (
            "CUB_200_2011/images",
            *(f"CUB_200_2011/{name}.txt" for name in ("images", "image_class_labels", "train_test_split", "classes")),
        ),
        _cub200,
    ),
    "flowers102": FLOWERS102,
    "flowers102_valid": replace(FLOWERS102, read=partial(_flowers102, splits=("trnid", "valid"))),
    "food101": Archive(
        "Food-101",
        ("food-101.tar.gz",),
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        ("food-101/images", "food-101/meta/classes.txt", "food-101/meta/train.txt", "food-101/meta/test.txt"),
        _food101,
    ),
    "pets": Archive(
        "Oxford-IIIT Pet",
        ("images.tar.gz", "annotations.tar.gz"),
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        ("images", "annotations/trainval.txt", "annotations/test.txt"),
        _pets,
    ),
}
