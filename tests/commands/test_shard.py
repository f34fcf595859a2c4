import json
import shutil

import pytest

from clever_fast.cli import main
from tests.images import encode, photograph


@pytest.fixture
def folder(tmp_path):
    for split, names in {"train": ("a/1.jpg", "b/1.jpg", "b/2.png"), "val": ("a/1.jpg", "b/1.jpg")}.items():
        for seed, name in enumerate(names):
            path = tmp_path / "data" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(photograph(seed=seed), "PNG" if name.endswith("png") else "JPEG"))
    return tmp_path / "data"


def lines(capsys) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("indexed")]


def test_build_verify_index(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["shard", "build", str(folder), str(out), "--name", "toy"]) == 0
    assert lines(capsys) == [f"{out}/train: 3 images in 1 shards", f"{out}/val: 2 images in 1 shards"]
    assert json.loads((out / "val/shards.json").read_text())["shards"][0]["name"] == "toy-val-000000.tar"
    assert main(["shard", "build", str(folder), str(out), "--name", "toy"]) == 0
    assert lines(capsys)[0] == f"{out}/train: 3 images in 1 shards, of which 1 were there"
    assert main(["shard", "verify", str(out)]) == 0
    both = [f"{out}/train: 1 shards, 3 sound images, 0 faults", f"{out}/val: 1 shards, 2 sound images, 0 faults"]
    assert lines(capsys) == both
    assert main(["shard", "verify", str(out), "--split", "val"]) == 0
    assert lines(capsys) == both[1:]
    assert main(["shard", "index", str(out)]) == 0
    assert [line for line in lines(capsys) if "images" in line] == [
        f"{out}/train: 3 images, 2 classes, 0 unreadable",
        f"{out}/val: 2 images, 2 classes, 0 unreadable",
    ]
    assert main(["shard", "index", str(out), "--split", "val"]) == 0
    assert lines(capsys) == [
        f"{out}/val: 2 images, 2 classes, 0 unreadable",
        f"manifest: {out}/val/.clever_fast/manifest.tsv",
    ]
    assert main(["doctor", "--data", str(out), "--run", str(tmp_path)]) in (0, 1)
    assert "3 images of 2 classes" in capsys.readouterr().out
    for data in (folder, out):
        assert main(["preview", str(data), "--out", str(tmp_path / f"{data.name}.png"), "--policy", "baug"]) == 0
    assert (tmp_path / "data.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_a_damaged_val_fails_as_well(folder, tmp_path, capsys):
    main(["shard", "build", str(folder), str(tmp_path / "out"), "--name", "toy"])
    shard = tmp_path / "out" / "val" / "toy-val-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1024])
    assert main(["shard", "verify", str(tmp_path / "out")]) == 1
    assert "toy-val-000000.tar: " in capsys.readouterr().out


def test_verify_fails_on_a_fault(folder, tmp_path, capsys):
    main(["shard", "build", str(folder / "train"), str(tmp_path / "out"), "--name", "toy"])
    shard = tmp_path / "out" / "toy-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1024])
    capsys.readouterr()
    assert main(["shard", "verify", str(tmp_path / "out")]) == 1
    shown = lines(capsys)
    assert shown[0].startswith("toy-000000.tar: ")
    assert shown[-1] == f"{tmp_path / 'out'}: 1 shards, 3 sound images, 1 faults"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "data", "out", "--megabytes", "0"], "--megabytes 0 is too small"),
        (["build", "data", "out", "--name", "../up"], "--name '../up' cannot begin a file's name"),
        (["build", "nowhere", "out"], "no such folder: nowhere"),
        (["build", "data", "data/train/a/1.jpg"], "cannot build shards in data/train/a/1.jpg"),
        (["verify", "data"], "data holds no tar shards"),
        (["index", "data"], "data holds no tar shards"),
        (["unknown"], "no command 'shard unknown'"),
    ],
)
def test_wrong_input_is_one_line(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["shard", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_another_build_is_not_overwritten(folder, tmp_path, capsys):
    words = ["shard", "build", str(folder), str(tmp_path / "out")]
    assert main(words) == 0
    shutil.copy(folder / "train/a/1.jpg", folder / "train/a/2.jpg")
    assert main(words) == 2
    assert "holds other shards: remove them, or name another folder" in capsys.readouterr().err
