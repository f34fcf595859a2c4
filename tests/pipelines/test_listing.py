"""What of a folder are splits, classes and images: never val/ in training, and nothing left out without a word."""

import pytest

from clever_fast.errors import UserError
from clever_fast.pipelines.listing import find_split, refuse_inside, split_folders
from clever_fast.pipelines.manifest import open_manifest
from tests.images import encode, photograph

JPEG = encode(photograph(20, 16))


def draw(root, *files):
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(JPEG)
    return root


@pytest.mark.parametrize(
    ("train", "val"),
    [("Train", "Val"), ("training", "validation"), ("TRAIN", "TEST"), ("train", "valid"), ("Training", "Testing")],
)
def test_splits_are_known_in_any_usual_spelling(tmp_path, train, val):
    draw(tmp_path, f"{train}/cat/a.jpg", f"{train}/dog/b.jpg", f"{val}/cat/c.jpg", f"{val}/dog/d.jpg")
    for split, name in (("train", train), ("val", val), ("test", val)):
        assert find_split(tmp_path, split) == tmp_path / name
        assert open_manifest(tmp_path, split=split).classes == ["cat", "dog"]


@pytest.mark.parametrize(
    "files", [("train/a.jpg", "val/b.jpg"), ("train/cat/a.jpg", "val/b.jpg"), ("Train/a.jpg", "test/cat/b.jpg")]
)
def test_a_split_without_class_folders_is_refused(tmp_path, files):
    draw(tmp_path, *files)
    with pytest.raises(UserError, match="holds images but no class folders: put them in"):
        open_manifest(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    draw(tmp_path, "train/a.jpg", "bus/b.jpg", "Bus/c.jpg")
    assert split_folders(tmp_path) == {}
    assert open_manifest(tmp_path).classes == ["Bus", "bus", "train"]


def test_two_spellings_of_one_split_are_refused(tmp_path):
    draw(tmp_path, "train/cat/a.jpg", "Training/cat/b.jpg")
    with pytest.raises(UserError, match="two folders of one split"):
        open_manifest(tmp_path)


def test_the_folder_above_the_splits_names_the_one_that_was_meant(tmp_path):
    draw(tmp_path, "ds/train/cat/a.jpg", "ds/val/cat/b.jpg")
    with pytest.raises(UserError, match=rf"did you mean {tmp_path / 'ds'}\?"):
        open_manifest(tmp_path)


def test_folders_without_images_are_no_classes_and_are_named(tmp_path):
    draw(tmp_path, "cat/a.jpg", "dog/b.jpg", "__MACOSX/cat/._a.jpg", "dog/@eaDir/b.jpg/thumb.jpg", "@eaDir/x/c.jpg")
    (tmp_path / "ant").mkdir()
    manifest = open_manifest(tmp_path)
    assert (manifest.classes, manifest.labels.tolist()) == (["cat", "dog"], [0, 1])
    assert manifest.notes == ("folders without images are no classes: 3 (ant, __MACOSX, @eaDir)",)
    assert manifest.notes[0] in manifest.summary()
    assert open_manifest(tmp_path).notes == manifest.notes  # also of a manifest that is there already


def test_images_beside_the_class_folders_are_named(tmp_path):
    draw(tmp_path, "cat/a.jpg", *(f"{i}.jpg" for i in range(5)))
    (tmp_path / "readme.txt").write_text("")
    expected = "images beside the class folders are left out: 5 (0.jpg, 1.jpg, 2.jpg, ...)"
    assert open_manifest(tmp_path).notes == (expected,)


def test_a_class_list_may_begin_with_a_byte_order_mark(tmp_path):
    draw(tmp_path / "data", "a/a.jpg", "b/b.jpg")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa\r\n")
    assert open_manifest(tmp_path / "data", classes=tmp_path / "list.txt").classes == ["a"]


def test_what_is_written_does_not_lie_inside_the_data(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/train")
    for inside in ("data/train", "data/train/run", "data/train/a/../../train/run", "link/run"):
        with pytest.raises(UserError, match="lies inside the data"):
            refuse_inside(tmp_path / inside, tmp_path / "data" / "train", "--run")
    refuse_inside(tmp_path / "data" / "run", tmp_path / "data" / "train", "--run")
    refuse_inside(tmp_path / "run", "s3://bucket/run", "--run")
