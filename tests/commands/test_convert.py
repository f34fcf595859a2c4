"""CIFAR-10's binary archive becomes class folders, whole or not at all."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from clever_fast.commands import convert as module
from clever_fast.commands.convert import BATCHES, ROW, cifar10
from clever_fast.errors import UserError
from clever_fast.pipelines.manifest import open_manifest

CLASSES = ["airplane", "cat", "dog"]
ROWS = 4


def batches(seed=0):
    rows = np.random.default_rng(seed).integers(0, 256, (6, ROWS, ROW), dtype=np.uint8)
    rows[..., 0] %= len(CLASSES)
    return rows


def pack(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def official():
    names = [name for split in ("train", "test") for name in BATCHES[split]]
    files = {f"cifar-10-batches-bin/{name}": rows.tobytes() for name, rows in zip(names, batches())}
    files["cifar-10-batches-bin/batches.meta.txt"] = "\n".join([*CLASSES, "", ""]).encode()
    return files


def test_every_pixel_and_label_arrives(tmp_path):
    cifar10(pack(tmp_path / "c.tar.gz", official()), tmp_path / "out")
    rows = batches()
    for split, expected in (("train", rows[:5].reshape(-1, ROW)), ("test", rows[5])):
        for number, row in enumerate(expected):
            image = np.asarray(Image.open(tmp_path / "out" / split / CLASSES[row[0]] / f"{number:05d}.png"))
            assert image.shape == (32, 32, 3)
            for y, x, c in ((0, 0, 0), (3, 30, 1), (31, 7, 2)):
                assert image[y, x, c] == row[1 + c * 1024 + y * 32 + x]
            np.testing.assert_array_equal(image, np.moveaxis(row[1:].reshape(3, 32, 32), 0, 2))
        assert len(list((tmp_path / "out" / split).rglob("*.png"))) == len(expected)
    assert open_manifest(tmp_path / "out").classes == CLASSES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: {"cifar-10-batches-py/data_batch_1": b"x"}, "has no batches.meta.txt: expected cifar-10-binary"),
        (lambda files: {k: v for k, v in files.items() if "batch_3" not in k}, "has no data_batch_3.bin"),
        (
            lambda files: {k: v[:-1] if "batch_2" in k else v for k, v in files.items()},
            "data_batch_2.bin .* rows of 3,073",
        ),
        (
            lambda files: files | {"cifar-10-batches-bin/test_batch.bin": b"\x09" * ROW},
            "test_batch.bin .* labels below 3",
        ),
    ],
)
def test_another_archive_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        cifar10(pack(tmp_path / "c.tar.gz", change(official())), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_refused(tmp_path):
    data = pack(tmp_path / "c.tar.gz", official()).read_bytes()
    for damaged in (data[: len(data) // 2], b"<html>", b""):
        (tmp_path / "bad.tar.gz").write_bytes(damaged)
        with pytest.raises(UserError, match=r"bad.tar.gz is damaged .*expected cifar-10-binary.tar.gz"):
            cifar10(tmp_path / "bad.tar.gz", tmp_path / "out")
    with pytest.raises(UserError, match="no such archive"):
        cifar10(tmp_path / "none", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out exists"):
        cifar10(tmp_path / "c.tar.gz", tmp_path / "out")


def test_an_interrupted_run_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    archive = pack(tmp_path / "c.tar.gz", official())

    def interrupt(images):
        yield 0, images[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_numbered", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cifar10(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    cifar10(archive, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6 * ROWS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.tar.gz", "out"]
