"""Which labelled images a classifier learns from, and which it is tested on."""

import math
from pathlib import Path

import numpy as np

from clever_fast.errors import UserError
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.parameters import PERMUTATION, generator


def check(bank: Manifest, query: Manifest) -> None:
    """Raise UserError where a score of `query` with what `bank` teaches would mean nothing."""
    if bank.root == query.root and bank.paths == query.paths:
        raise UserError(f"{bank.root} has no val/ or test/ with class folders: what is learned there cannot be tested")
    if bank.classes != query.classes:
        differing = sorted(set(bank.classes) ^ set(query.classes))[:5]
        raise UserError(
            f"{bank.root} and {query.root} hold different classes, {', '.join(differing)} in only one of them; "
            "rename the folders, or name the common ones in a file for --classes"
        )
    if len(bank.classes) < 2:
        raise UserError(f"{bank.root} holds one class, {bank.classes[0]}: there is nothing to tell it from")


def first_of_each_class(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Rows of the first `per_class` images of every class, or all of a class that has fewer.

    Raises:
        UserError: per_class is below 1.
    """
    if per_class < 1:
        raise UserError(f"{per_class} labelled images a class cannot vote; give at least 1")
    place = np.empty(len(labels), dtype=np.int64)  # of each image within its class
    for label in np.unique(labels):
        of_class = labels == label
        place[of_class] = np.arange(of_class.sum())
    return np.flatnonzero(place < per_class)


def few_of_each_class(manifest: Manifest, per_class: int) -> Manifest:
    """The first `per_class` images of every class, as `first_of_each_class` takes them."""
    rows = first_of_each_class(manifest.labels, per_class)
    return manifest.take(rows, f"{manifest.fingerprint}, first {per_class} of each class")


def balanced_share(manifest: Manifest, share: float, seed: int) -> Manifest:
    """A random share of every class, the same for the same seed.

    Raises:
        UserError: the share is not within (0, 1], or leaves a class without an image.
    """
    if not 0 < share <= 1:
        raise UserError(f"a share of {share} of the labels is not above 0 and at most 1; 1 % is 0.01")
    rows = []
    for label, name in enumerate(manifest.classes):
        of_class = np.flatnonzero(manifest.labels == label)
        count = math.floor(share * len(of_class) + 0.5)
        if count == 0:
            raise UserError(
                f"{share:g} of the {len(of_class)} images of class {name} is none; give a larger share, or a list"
            )
        rows.append(of_class[generator(seed, label, 0, PERMUTATION).permutation(len(of_class))[:count]])
    return manifest.take(np.sort(np.concatenate(rows)), f"{manifest.fingerprint}, {share:g} of each class, seed {seed}")


def listed_share(manifest: Manifest, file: Path) -> Manifest:
    """The images that a file names, one a line: by path in the data folder, or by file name as SimCLR's lists do.

    Raises:
        UserError: the file cannot be read, or names an image that is not there or that is not the only one so called.
    """
    try:
        wanted = [line.strip() for line in Path(file).read_text().splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"cannot read the list {file}: {error.strerror}") from None
    places: dict[str, list[int]] = {}
    for row, path in enumerate(manifest.paths):
        for name in {path, path.rpartition("/")[2]}:
            places.setdefault(name, []).append(row)
    for name in wanted:
        if len(places.get(name, ())) != 1:
            found = "several images are" if name in places else "no readable image is"
            raise UserError(f"{found} called {name!r} in {manifest.root}, which {file} names; give its path from there")
    if not wanted:
        raise UserError(f"the list {file} names no image")
    rows = np.unique([places[name][0] for name in wanted])
    return manifest.take(rows, f"{manifest.fingerprint}, {file}")
