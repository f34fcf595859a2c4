"""The manifest agrees with DALI about every kind of file, survives odd names and notices changes."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def

from clever_fast.errors import UserError
from clever_fast.pipelines import manifest, manifest_file, reading
from clever_fast.pipelines.listing import find_split
from clever_fast.pipelines.manifest import open_manifest
from tests.images import encode, photograph, readable, rotated, unreadable


def write(root, files):
    for name, data in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
    return root


@pytest.fixture
def folder(tmp_path):
    """Three images of 20, 30 and 40 px width in two classes."""
    names = ("cat/b.jpg", "cat/a.jpg", "ant/deep/c.jpg")
    return write(tmp_path / "data", {name: encode(photograph(20 + 10 * i, 16)) for i, name in enumerate(names)})


def dali_shape(data: bytes):
    """(width, height) as DALI decodes the file, or None."""

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def decode():
        return fn.decoders.image(fn.external_source(lambda: [np.frombuffer(data, np.uint8)], batch=True), device="cpu")

    try:
        image = decode().run()[0].at(0)
    except RuntimeError:
        return None
    return image.shape[1], image.shape[0]


def test_ok_means_that_dali_decodes_it(tmp_path):
    good, bad = readable(), unreadable()
    manifest = open_manifest(write(tmp_path, {f"c/{name}": data for name, data in (good | bad).items()}))
    sizes = {path: tuple(size) for path, size in zip(manifest.paths, manifest.sizes.tolist())}
    for name, data in (good | bad).items():
        assert sizes.get(f"c/{name}") == dali_shape(data), name
    assert {path[2:] for path in sizes} == set(good)
    assert {path[2:] for path in manifest.unreadable} == set(bad)
    for orientation in range(1, 9):
        assert sizes[f"c/exif{orientation}.jpg"] == ((80, 60) if orientation < 5 else (60, 80))
    assert manifest.unreadable["c/empty.jpg"] == "empty file"
    assert manifest.unreadable["c/short.jpg"] == "truncated or corrupt JPEG"
    assert manifest.unreadable["c/html.jpg"] == "not an image, starts with b'<html><body>'"
    assert manifest.unreadable["c/gif.jpg"].startswith("GIF")


def test_order_labels_and_what_is_skipped(folder):
    write(folder, {"cat/.hidden.jpg": b"x", "cat/notes.txt": b"x", ".git/a.jpg": b"x", "readme.jpg": b"x"})
    manifest = open_manifest(folder)
    assert manifest.classes == ["ant", "cat"]
    assert manifest.paths == ["ant/deep/c.jpg", "cat/a.jpg", "cat/b.jpg"]
    assert manifest.labels.tolist() == [0, 1, 1]
    assert manifest.labels.dtype == np.int64
    assert manifest.sizes.tolist() == [[40, 16], [30, 16], [20, 16]]
    assert manifest.sizes.dtype == np.int32
    assert not manifest.unreadable


def test_a_stored_manifest_is_the_one_that_was_built(tmp_path):
    names = ["c\td/a\nb.jpg", "c\td/back\\slash\\n.jpg", "c\td/\rü ☃.jpg", "é/a.jpg", b"\xff\xe9/\x80.jpg"]
    write(tmp_path, {name: encode(photograph(20 + i, 16)) for i, name in enumerate(names)})
    write(tmp_path, {"é/\t.jpg": b"\t\n"})
    built, loaded = open_manifest(tmp_path), open_manifest(tmp_path)
    assert {os.fsencode(path) for path in built.paths} == {os.fsencode(name) for name in names}
    assert all((tmp_path / path).exists() for path in loaded.paths)
    assert built.file.read_bytes().decode().count("\n") == 7  # valid UTF-8, one line for each file
    for field in ("root", "paths", "classes", "unreadable", "fingerprint", "file"):
        assert getattr(built, field) == getattr(loaded, field)
    np.testing.assert_array_equal(built.sizes, loaded.sizes)
    np.testing.assert_array_equal(built.labels, loaded.labels)


def test_changes_are_noticed_and_only_they_are_decoded(folder, capsys):
    first = open_manifest(folder, progress=True)
    assert "indexed 3 images" in capsys.readouterr().out
    assert "3 images, 2 classes, 0 unreadable" in first.summary()
    # Overwritten in place, size and time kept: cannot be noticed, and shows which rows are taken over.
    stamp = (folder / "cat/a.jpg").stat()
    (folder / "cat/a.jpg").write_bytes(b"x" * stamp.st_size)
    os.utime(folder / "cat/a.jpg", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert open_manifest(folder).fingerprint == first.fingerprint

    write(folder, {"ant/deep/new.jpg": encode(photograph(50, 16))})
    added = open_manifest(folder, progress=True)
    assert "has changed" in capsys.readouterr().out
    assert added.sizes.tolist() == [[40, 16], [50, 16], [30, 16], [20, 16]]
    assert added.fingerprint != first.fingerprint

    write(folder, {"new": encode(photograph(60, 16))})
    os.replace(folder / "new", folder / "cat/b.jpg")
    assert open_manifest(folder).sizes.tolist()[-1] == [60, 16]
    (folder / "ant/deep/new.jpg").unlink()
    assert len(open_manifest(folder)) == 3
    assert list(open_manifest(folder, force=True).unreadable) == ["cat/a.jpg"]


def test_the_fingerprint_knows_the_images_and_not_the_place(folder, tmp_path):
    first = open_manifest(folder).fingerprint
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns(".clever_fast"), copy_function=shutil.copy)
    assert open_manifest(tmp_path / "copy").fingerprint == first
    write(tmp_path / "copy", {"cat/a.jpg": encode(photograph(30, 17))})
    assert open_manifest(tmp_path / "copy", force=True).fingerprint != first


def test_an_interrupted_index_goes_on(folder, monkeypatch):
    def interrupt(data):
        raise KeyboardInterrupt

    write(folder, {"cat/z.jpg": b"not an image"})
    monkeypatch.setattr(reading, "_reason", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_manifest(folder)
    header, rows = manifest_file.load(folder / ".clever_fast/manifest.tsv")
    assert header["listing"] == manifest.INTERRUPTED
    assert rows.paths == ["ant/deep/c.jpg", "cat/a.jpg", "cat/b.jpg"]
    monkeypatch.undo()
    assert (len(open_manifest(folder)), list(open_manifest(folder).unreadable)) == (3, ["cat/z.jpg"])


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-20], lambda text: text.replace(": 1,", ": 99,", 1), lambda _: ""]
)
def test_a_damaged_or_foreign_manifest_is_written_anew(folder, damage):
    first = open_manifest(folder)
    whole = first.file.read_text()
    first.file.write_text(damage(whole))
    assert open_manifest(folder).fingerprint == first.fingerprint
    assert first.file.read_text() == whole


def test_a_read_only_folder_is_indexed_into_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder / ".clever_fast").write_text("a file in the way, for root may write anywhere")
    manifest = open_manifest(folder)
    assert tmp_path / "cache/clever_fast" in manifest.file.parents
    (folder / "cat/a.jpg").write_bytes(b"in place")
    assert open_manifest(folder).sizes.tolist() == manifest.sizes.tolist()  # loaded from the cache
    (tmp_path / "cache" / "clever_fast").rename(tmp_path / "gone")
    (tmp_path / "cache" / "clever_fast").write_text("also in the way")
    unkept = open_manifest(folder)
    assert unkept.file is None
    assert list(unkept.unreadable) == ["cat/a.jpg"]


def test_of_several_processes_one_indexes(folder):
    code = (
        "from clever_fast.pipelines.manifest import open_manifest; "
        f"print(open_manifest({str(folder)!r}, progress=True).fingerprint)"
    )
    for i in range(200):
        write(folder, {f"ant/{i}.jpg": encode(photograph(200, 150))})
    ranks = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [rank.communicate(timeout=50)[0].splitlines() for rank in ranks]
    assert sum(any(line.startswith("indexed") for line in lines) for lines in outputs) == 1
    assert len({lines[-1] for lines in outputs}) == 1


def test_a_class_list_takes_a_subset(folder, tmp_path):
    write(folder, {"bee/a.jpg": encode(photograph(25, 16))})
    everything = open_manifest(folder)
    (tmp_path / "list.txt").write_text("# two of three\ncat  # last\n\nbee\n")
    manifest = open_manifest(folder, classes=tmp_path / "list.txt")
    assert manifest.classes == ["bee", "cat"]
    assert manifest.labels.tolist() == [0, 1, 1]
    assert manifest.file != everything.file
    (tmp_path / "list.txt").write_text("bee\ncta\n")
    with pytest.raises(UserError, match=r"class 'cta' of .*list.txt is not a folder of .*did you mean cat\?"):
        open_manifest(folder, classes=tmp_path / "list.txt")


def test_links_are_followed_but_not_in_circles(folder):
    (folder / "link").symlink_to(folder / "cat")
    (folder / "cat/back").symlink_to(folder)
    (folder / "ant/broken.jpg").symlink_to(folder / "nowhere.jpg")
    manifest = open_manifest(folder)
    assert {"link/a.jpg", "link/b.jpg", "cat/back/ant/deep/c.jpg"} <= set(manifest.paths)
    assert manifest.unreadable["ant/broken.jpg"].startswith("cannot be opened")


def test_splits(folder, tmp_path):
    data = tmp_path / "splits"
    for split in ("train", "test"):
        shutil.copytree(folder, data / split)
    assert find_split(data, "train") == data / "train"
    assert find_split(data, "val") == data / "test"
    assert find_split(folder, "train") == folder
    write(folder, {"train/a.jpg": encode(photograph())})  # a class of that name
    assert find_split(folder, "train") == folder
    shutil.rmtree(data / "test")
    with pytest.raises(UserError, match="has train, but no val or test"):
        find_split(data, "val")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("dta", r"no such folder: .*/dta; did you mean .*/data\?"),
        ("nothing", "no such folder: .*/nothing$"),
        ("archive.tar", "archive.tar: cut off"),
        ("bare", "bare has no class folders"),
        ("loose", "loose has images but no class folders"),
        ("hollow", "the 2 class folders of .*hollow hold no images"),
        ("broken", r"none of the 2 images of .*broken can be read; a/a.jpg: empty file"),
    ],
)
def test_what_a_user_can_get_wrong(folder, tmp_path, data, message):
    write(tmp_path, {"archive.tar": b"", "loose/a.jpg": rotated(1), "broken/a/a.jpg": b"", "broken/a/b.jpg": b"x"})
    for empty in ("bare", "hollow/a", "hollow/b"):
        (tmp_path / empty).mkdir(parents=True)
    for _ in range(2):  # built, then loaded
        with pytest.raises(UserError, match=message):
            open_manifest(tmp_path / data)


def test_without_nvimagecodec_the_extra_is_named(folder, monkeypatch):
    import nvidia

    monkeypatch.delattr(nvidia, "nvimgcodec", raising=False)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    with pytest.raises(UserError, match=r"clever_fast\[cuda12\]"):
        open_manifest(folder)


def test_a_terminal_gets_a_bar(folder, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    write(folder, {"cat/z.jpg": encode(photograph())[:-2]})
    manifest = open_manifest(folder, progress=True)
    shown = capfd.readouterr()
    assert "4/4" in shown.out
    assert "1 unreadable\n  cat/z.jpg: truncated" in manifest.summary()
    assert not shown.err  # the codecs' own complaints
