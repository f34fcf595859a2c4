"""From generated clips to scores, masks and pictures, by the command line."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from clever_fast.accelerator import Accelerator
from clever_fast.cli import main
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.errors import UserError
from clever_fast.evaluate.segmentation.maps import feature_maps, has_keys, normalised, stride
from clever_fast.models import BACKBONES
from clever_fast.models.dense import dense_features
from clever_fast.ops import selection
from clever_fast.options import Execution
from tests.recipes import VIT

PARTS = {"all": slice(None), "IR": slice(0, 38), "EF": slice(38, None)}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    out = tmp_path_factory.mktemp("clips") / "set"
    words = ["--count", "2", "--frames", "4", "--images", "3", "--size", "64", "--workers", "1"]
    assert main(["synthesize", "clips", str(out), *words]) == 0
    return out


@pytest.fixture(scope="module")
def run(small, images, tmp_path_factory):
    from clever_fast.options import Run
    from clever_fast.train import train

    folder = tmp_path_factory.mktemp("run")
    train(small(), Execution(device="cpu"), Run(data=images, folder=folder, stop_after=1))
    return folder


def encoder(backbone=VIT, **changes):
    network = backbone.build(0.0)
    return TrainedEncoder(network, PARTS, 32, "a test")


def test_generated_clips_are_pure_and_exact(clips, tmp_path, capsys):
    words = ["--count", "2", "--frames", "4", "--images", "3", "--size", "64", "--workers", "2"]
    assert main(["synthesize", "clips", str(tmp_path / "b"), *words]) == 0
    files = sorted(path.relative_to(clips) for path in clips.rglob("*.*g"))
    assert len(files) == 2 * 4 * 2 + 3 * 2
    assert all((clips / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
    masks = [np.asarray(Image.open(clips / f"Annotations/480p/clip00/{i:05d}.png")) for i in range(4)]
    assert set(np.unique(masks[0])) == {0, 1, 2}
    assert all((a != b).any() for a, b in pairwise(masks))
    main(["synthesize", "clips", str(clips), *words])
    assert "already holds this set" in capsys.readouterr().out
    assert main(["synthesize", "clips", str(tmp_path / "c"), "--frames", "1"]) == 2
    assert "--frames 1 is too small" in capsys.readouterr().err


def test_video_writes_masks_sheets_and_scores(clips, run, tmp_path, capsys):
    words = ["evaluate", "video", "--data", str(clips), "--run", str(run), "--size", "64", "--part", "IR"]
    assert main([*words, "--animate", "true", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "video.json").read_text())
    assert list(result["scores"]) == ["IR", "first mask"]
    assert len(result["objects"]) == 4
    mean = np.mean([row["region"]["mean"] for row in result["objects"]])
    assert result["scores"]["IR"]["J mean"] == pytest.approx(100 * mean)
    for name in ("clip00", "clip01"):
        given = Image.open(clips / f"Annotations/480p/{name}/00000.png")
        masks = [Image.open(tmp_path / f"masks/{name}/{i:05d}.png") for i in range(4)]
        assert all((mask.mode, mask.size) == ("P", given.size) for mask in masks)
        assert (np.asarray(masks[0]) == np.asarray(given)).all()
        assert Image.open(tmp_path / f"{name}.jpg").width > 500
        assert Image.open(tmp_path / f"{name}.webp").n_frames == 4
    assert "first mask" in capsys.readouterr().out


def test_a_folder_of_frames_and_one_mask(clips, run, tmp_path):
    frames, mask = clips / "JPEGImages/480p/clip01", clips / "Annotations/480p/clip01/00000.png"
    words = ["--data", str(frames), "--mask", str(mask), "--run", str(run), "--size", "64", "--out", str(tmp_path)]
    assert main(["evaluate", "video", *words]) == 0
    assert len(list((tmp_path / "masks/clip01").iterdir())) == 4
    assert json.loads((tmp_path / "video.json").read_text())["scores"] == {}


def test_bad_clips_are_skipped_and_the_others_scored(clips, run, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    bad = data / "JPEGImages/480p/clip00/00002.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])  # its header is fine
    words = ["evaluate", "video", "--data", str(data), "--run", str(run), "--size", "64", "--out", str(tmp_path / "o")]
    assert main(words) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert f"skipped clip00: cannot read the image {bad}: truncated" in first
    assert "skipped 1 of 2 clips (clip00): the scores are of the other 1" in last
    assert {row["clip"] for row in json.loads((tmp_path / "o/video.json").read_text())["objects"]} == {"clip01"}
    (data / "Annotations/480p/clip01/00000.png").unlink()
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("nothing is left")


def test_saliency_writes_maps_a_picture_and_scores(clips, run, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(clips, data)
    words = ["evaluate", "saliency", "--data", str(data), "--run", str(run), "--out", str(tmp_path / "o")]
    assert main(words) == 0
    scores = json.loads((tmp_path / "o/saliency.json").read_text())["scores"]
    assert list(scores) == ["all, TokenCut", "all, with solver"]
    assert all(0 <= value <= 100 for row in scores.values() for value in row.values())
    for index in range(3):
        truth = Image.open(data / f"ground_truth_mask/{index:05d}.png")
        assert Image.open(tmp_path / f"o/maps/{index:05d}.png").size == truth.size
    assert Image.open(tmp_path / "o/saliency.jpg").width > 400
    Image.new("L", truth.size).save(data / "ground_truth_mask/00001.png")
    capsys.readouterr()
    plain = [*words, "--data", str(data / "images"), "--masks", str(data / "ground_truth_mask"), "--solver", "false"]
    assert main(plain) == 2
    captured = capsys.readouterr()
    assert "00001.png is all black" in captured.err.splitlines()[0]
    assert "skipped 1 of 3 images (00001.jpg)" in captured.err.splitlines()[-1]
    assert "images: 2 images" in captured.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["video", "--size", "50"], "--size 50 must be a multiple of 16"),
        (["video", "--part", "XY"], "--part XY"),
        (["video", "--previous", "-1"], "previous is -1; it must be at least 0"),
        (["video", "--radius", "-3"], "radius is -3; it must be at least 0"),
        (["video", "--neighbours", "0"], "neighbours is 0; it must be at least 1"),
        (["saliency", "--features", "keys"], "has no attention"),
        (["saliency", "--largest", "8"], "--largest 8 is smaller than a patch"),
    ],
)
def test_wrong_options_get_one_line(clips, run, capsys, tmp_path, words, message):
    assert main(["evaluate", *words, "--data", str(clips), "--run", str(run), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["resnet10_small", "vmamba_mini", "resnet18"])
def test_strides_and_maps_of_networks_without_patches(name):
    found = encoder(BACKBONES[name])
    step = stride(found)
    assert step == {"resnet10_small": 16, "vmamba_mini": 16, "resnet18": 32}[name]
    with torch.no_grad():
        maps = dense_features(found.network.eval(), torch.randn(1, 3, 64, 96))
        pooled = found.network(torch.zeros(1, 3, 64, 96)).shape[1]
    assert maps.shape == (1, pooled, 64 // step, 96 // step)


@pytest.mark.parametrize("name", ["vit_mini_patch8", "resnet10_small", "vmamba_mini"])
def test_weights_rounded_once_give_what_autocast_gives(name):
    found, accelerator = encoder(BACKBONES[name]), Accelerator.from_execution(Execution(device="cpu", precision="bf16"))
    images = torch.randn(2, 3, 64, 96)
    maps = feature_maps(found, "all", accelerator)(images)
    with torch.no_grad(), accelerator.autocast(), selection.use(accelerator.execution.kernels):
        wanted = dense_features(found.network, images.contiguous(memory_format=torch.channels_last))
    assert torch.equal(maps, wanted.float())
    assert {weight.dtype for weight in found.network.parameters()} == {torch.float32}


def test_parts_and_keys_of_a_vit():
    accelerator, vit = Accelerator.from_execution(Execution(device="cpu", precision="fp32")), encoder()
    images = normalised([Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))], (40, 64))
    whole, ir = (feature_maps(vit, part, accelerator)(images) for part in ("all", "IR"))
    assert whole.shape == (1, 48, 5, 8)  # a grid that is not square
    torch.testing.assert_close(ir, whole[:, :38])
    keys = feature_maps(vit, "all", accelerator, keys=True)(images)
    block, seen = vit.network.blocks[-1], {}
    block.norm1.register_forward_hook(lambda _module, _input, output: seen.update(x=output))
    with torch.no_grad():
        vit.network(images)
        wanted = (seen["x"] @ block.attn.qkv.weight[48:96].T + block.attn.qkv.bias[48:96])[:, 1:]
    torch.testing.assert_close(keys, wanted.transpose(1, 2).unflatten(2, (5, 8)), rtol=1e-4, atol=1e-5)
    assert has_keys(vit)
    with pytest.raises(UserError, match="--features tokens"):
        feature_maps(vit, "IR", accelerator, keys=True)
