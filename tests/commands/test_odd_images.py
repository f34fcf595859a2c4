"""Every command that reads images, over every odd file in folders whose names are no UTF-8: no traceback, no hang."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clever_fast.cli import main
from clever_fast.options import Execution, Run
from clever_fast.train import train
from tests import odd_images
from tests.images import photograph

CLASSES = (os.fsdecode(b"cl\xe9"), "b")
HEADS = ["--epochs", "1", "--batch_size", "8", "--lrs", "0.1"]
WHOLE = ["--epochs", "1", "--batch_size", "8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """train/ and val/ of two classes; the first holds every odd file."""
    root = tmp_path_factory.mktemp("odd") / os.fsdecode(b"d\xe4ta")
    for split, count in (("train", 20), ("val", 8)):
        odd_images.draw(root / split / CLASSES[0])
        (root / split / CLASSES[0] / "loop").unlink()  # a class within the class; the test of reading follows it
        (root / split / CLASSES[1]).mkdir()
        for i in range(count):
            photograph(seed=i).save(root / split / CLASSES[1] / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def run(data, small, tmp_path_factory) -> Path:
    """Trained on all of them for two steps."""
    folder = tmp_path_factory.mktemp("run") / os.fsdecode(b"r\xfcn")
    train(small(), Execution(device="cpu", precision="fp32"), Run(data=data, folder=folder, stop_after=2))
    return folder


def call(capsys, *words) -> str:
    """What a command prints on both streams; it must end well."""
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert "Traceback" not in captured.err
    captured.out.encode()  # what is printed is UTF-8, or its bytes are written out
    return captured.out + captured.err


def test_index_and_doctor_name_what_is_left_out_and_what_is_dim(data, capsys):
    printed = call(capsys, "index", data)
    count = len(odd_images.unread()) + 2
    assert f"{len(odd_images.sound()) + 21} images, 2 classes, {count} unreadable" in printed
    for command in (["index", data], ["doctor", "--data", data]):
        printed = " ".join(call(capsys, *command).split())
        assert "1 of 67 images hold 12-bit data in 16 bits" in printed
        assert "multiply their values by 16" in printed


def test_preview_and_show_draw_them(data, run, tmp_path, capsys):
    call(capsys, "preview", data, "--out", tmp_path / "preview.png", "--images", 66, "--policy", "baug")
    call(
        capsys, "show", "pca", "--run", run, "--data", data, "--images", 60, "--size", 32, "--out", tmp_path / "pca.png"
    )
    call(capsys, "show", "neighbours", "--run", run, "--data", data, "--images", 54, "--out", tmp_path / "near.png")
    for name in ("preview", "pca", "near"):
        Image.open(tmp_path / f"{name}.png").verify()


def test_shards_hold_them_bit_for_bit(data, tmp_path, capsys):
    out = tmp_path / os.fsdecode(b"sh\xe4rds")
    call(capsys, "shard", "build", data, out)
    assert "0 faults" in call(capsys, "shard", "verify", out)
    call(capsys, "shard", "index", out, "--force")


def test_k_nn_reads_them(data, run, capsys):
    call(capsys, "evaluate", "knn", "--run", run, "--data", data, "--neighbours", "1,3")
    found = json.loads((run / "knn.json").read_text())
    assert (found["bank"], found["queries"]) == (len(odd_images.sound()) + 21, len(odd_images.sound()) + 9)


@pytest.mark.full
@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        ("linear", [*HEADS, "--perturbations", "Ro", "--repetitions", "1"]),
        ("robustness", [*HEADS, "--perturbations", "ET", "--repetitions", "1", "--neighbours", "3"]),
        ("rotation", HEADS),
        ("finetune", WHOLE),
        ("semi", [*WHOLE, "--shares", "0.5"]),
    ],
)
def test_the_other_protocols_read_them(data, run, tmp_path, capsys, protocol, options):
    call(capsys, "evaluate", protocol, "--run", run, "--data", data, "--out", tmp_path, *options)


def test_saliency_scores_or_names_every_file(data, run, tmp_path, capsys):
    images, masks = data / "val" / CLASSES[0], tmp_path / os.fsdecode(b"m\xe4sks")
    masks.mkdir()
    for name in ("UPPER.JPG", "exif6.jpg", "grey16.png", os.fsdecode(b"latin\xe9.jpg")):
        width, height = (60, 80) if name.startswith("exif6") else (80, 60)
        mask = np.zeros((height, width), np.uint8)
        mask[5:40, 5:40] = 255
        Image.fromarray(mask).save(masks / f"{Path(name).stem}.png")
    words = ["--data", images, "--masks", masks, "--out", tmp_path / "out", "--solver", "false"]
    assert main(["evaluate", "saliency", "--run", str(run), *map(str, words)]) == 2  # as others have no masks
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert json.loads((tmp_path / "out" / "saliency.json").read_text())["images"] >= 4
    for name in odd_images.unread():
        assert f"skipped {name}: " in printed.err


def test_video_carries_a_mask_through_frames_of_every_kind(data, run, tmp_path, capsys):
    frames = tmp_path / os.fsdecode(b"cl\xefp")
    frames.mkdir()
    kinds = ("UPPER.JPG", "grey16.png", "float32.tif", "cmyk.jpg", "a.jp2", os.fsdecode(b"latin\xe9.jpg"))
    for name in kinds:
        (frames / name).write_bytes(odd_images.sound()[name])
    mask = np.zeros((60, 80), np.uint8)
    mask[5:40, 5:40] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ["--data", frames, "--mask", tmp_path / "mask.png", "--size", 64, "--out", tmp_path / "out"]
    call(capsys, "evaluate", "video", "--run", run, *words)
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == len(kinds)


def test_export_describes_a_run_of_that_name(run, tmp_path, capsys):
    out = tmp_path / os.fsdecode(b"\xe4") / "encoder.safetensors"
    call(capsys, "export", "--run", run, "--out", out)
    assert json.loads(out.with_suffix(".json").read_text())["backbone"] == "resnet10_small"
