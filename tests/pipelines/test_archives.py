"""The official archives' layouts, made small, and what is said when something is missing."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from clever_fast.errors import UserError
from clever_fast.pipelines.archives import ARCHIVES, open_archive
from clever_fast.pipelines.matlab import read_array
from tests.images import encode, photograph


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


JPEG = encode(photograph(20, 16))


def cub200(root: Path) -> None:
    names = ["001.Albatross/a.jpg", "001.Albatross/b.jpg", "002.Auk/c.jpg", "002.Auk/d.jpg"]
    lists = {
        "images": "".join(f"{i} {name}\n" for i, name in enumerate(names, 1)),
        "image_class_labels": "1 1\n2 1\n3 2\n4 2\n",
        "train_test_split": "1 1\n2 0\n3 1\n4 0\n",
        "classes": "1 001.Albatross\n2 002.Auk\n",
    }
    write(root, {f"CUB_200_2011/{name}.txt": text for name, text in lists.items()})
    write(root, {f"CUB_200_2011/images/{name}": JPEG for name in names})


def flowers102(root: Path) -> None:
    write(root, {f"jpg/image_{i:05d}.jpg": JPEG for i in range(1, 7)})
    savemat(root / "imagelabels.mat", {"labels": np.array([1, 1, 1, 2, 2, 2], np.uint8)}, do_compression=True)
    split = {"trnid": [1, 4], "valid": [5], "tstid": [2, 3, 6]}
    savemat(root / "setid.mat", {name: np.array(ids, np.uint16) for name, ids in split.items()})


def food101(root: Path) -> None:
    write(root, {f"food-101/images/{name}.jpg": JPEG for name in ("pie/1", "pie/2", "soup/3", "soup/4")})
    write(root, {"food-101/meta/classes.txt": "pie\nsoup\n"})
    write(root, {"food-101/meta/train.txt": "pie/1\nsoup/3\n", "food-101/meta/test.txt": "pie/2\nsoup/4\n"})


def pets(root: Path) -> None:
    write(
        root, {f"images/{name}.jpg": JPEG for name in ("Abyssinian_1", "Abyssinian_2", "great_dane_1", "great_dane_2")}
    )
    write(root, {"annotations/trainval.txt": "#a comment\nAbyssinian_1 1 1 1\ngreat_dane_1 2 2 1\n"})
    write(root, {"annotations/test.txt": "Abyssinian_2 1 1 1\ngreat_dane_2 2 2 1\n"})


MAKERS = {maker.__name__: maker for maker in (cub200, flowers102, food101, pets)} | {"flowers102_valid": flowers102}
EXPECTED = {
    "cub200": (["001.Albatross", "002.Auk"], ["a.jpg", "c.jpg"], ["b.jpg", "d.jpg"]),
    "flowers102": (["1", "2"], ["image_00001.jpg", "image_00004.jpg"],
                   ["image_00002.jpg", "image_00003.jpg", "image_00006.jpg"]),
    "flowers102_valid": (["1", "2"], ["image_00001.jpg", "image_00004.jpg", "image_00005.jpg"],
                         ["image_00002.jpg", "image_00003.jpg", "image_00006.jpg"]),
    "food101": (["pie", "soup"], ["1.jpg", "3.jpg"], ["2.jpg", "4.jpg"]),
    "pets": (["Abyssinian", "great_dane"], ["Abyssinian_1.jpg", "great_dane_1.jpg"],
             ["Abyssinian_2.jpg", "great_dane_2.jpg"]),
}  # fmt: skip
LABELS = {"flowers102": ([0, 1], [0, 0, 1]), "flowers102_valid": ([0, 1, 1], [0, 0, 1])}


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_official_split_is_read(name, tmp_path):
    MAKERS[name](tmp_path)
    classes, *splits = EXPECTED[name]
    for split, files, labels in zip(("train", "test"), splits, LABELS.get(name, ([0, 1], [0, 1]))):
        manifest = open_archive(name, tmp_path, split)
        assert manifest.classes == classes
        assert [path.rpartition("/")[2] for path in manifest.paths] == files
        assert manifest.labels.tolist() == labels
        assert (manifest.sizes == [20, 16]).all()
        assert all((manifest.root / path).exists() for path in manifest.paths)
        assert open_archive(name, tmp_path, split).fingerprint == manifest.fingerprint


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_is_missing_is_named_with_its_archive_and_place(name, tmp_path):
    with pytest.raises(UserError) as caught:
        open_archive(name, tmp_path, "train")
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "nothing is downloaded" in message
    assert all(file in message for file in ARCHIVES[name].files)


def test_lists_that_are_not_as_published_are_refused(tmp_path):
    food101(tmp_path)
    (tmp_path / "food-101/meta/train.txt").write_text("pizza/1\n")
    with pytest.raises(UserError, match=r"Food-101 .* are not as published: .*pizza"):
        open_archive("food101", tmp_path, "train")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
def test_matlab_arrays_are_those_that_scipy_wrote(kind, compressed, tmp_path):
    values = {"a": np.arange(3, dtype=kind), "labels": np.arange(1, 120, dtype=kind)[None]}
    savemat(tmp_path / "x.mat", values, do_compression=compressed)
    for name, array in values.items():
        assert read_array(tmp_path / "x.mat", name).tolist() == array.ravel().tolist()
    with pytest.raises(UserError, match="no array 'c'"):
        read_array(tmp_path / "x.mat", "c")
    (tmp_path / "x.mat").write_bytes((tmp_path / "x.mat").read_bytes()[:-20])
    with pytest.raises(UserError, match="MATLAB 5"):
        read_array(tmp_path / "x.mat", "labels")
