"""The evaluation loader: the published resize and crop, every image once, files that break."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from clever_fast.benchmarks.checks import alone
from clever_fast.pipelines import resize
from clever_fast.pipelines.augmentations import CentralCrop
from clever_fast.pipelines.evaluation import EvaluationLoader
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.pretraining import MEAN, STD
from clever_fast.pipelines.views import Canvas
from tests.images import encode, photograph

SIZES = [(80, 60), (61, 97), (32, 32), (300, 40), (10, 200), (33, 32), (256, 256)]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    paths = [f"{i}.png" for i in range(len(SIZES))]
    for seed, (path, size) in enumerate(zip(paths, SIZES)):
        (tmp_path / path).write_bytes(encode(photograph(*size, seed), "PNG"))
    sizes = np.array(SIZES, np.int32)
    return Manifest(tmp_path, paths, sizes, np.zeros(len(paths), np.int64), ["photograph"], {}, "test")


def pixels(loader: EvaluationLoader) -> dict[int, np.ndarray]:
    return {int(i): image * STD + MEAN for rows, images in loader for i, image in zip(rows, images)}


@pytest.mark.parametrize(("size", "shorter"), [(96, 110), (224, 256), (64, 64), (32, 32)])
def test_images_are_resized_and_cropped_as_torchvision_does(manifest, size, shorter):
    found = pixels(EvaluationLoader(manifest, size=size, batch_size=4))
    assert list(found) == list(range(len(SIZES)))
    reference = v2.Compose([v2.Resize(shorter, v2.InterpolationMode.BICUBIC), v2.CenterCrop(size)])
    for index, image in found.items():
        expected = np.asarray(reference(Image.open(manifest.root / manifest.paths[index])), float)
        assert np.abs(image - expected).mean() < 1, SIZES[index]


def test_an_extreme_shape_needs_no_extreme_memory(monkeypatch):
    region = CentralCrop().sample(np.array([[10_000, 10]]), 224)
    start, end = region["crop_start"][0], region["crop_end"][0]
    np.testing.assert_allclose(end - start, 224 / 256 * 10, rtol=1e-3)
    np.testing.assert_allclose((start + end) / 2, [5, 5000], rtol=1e-3)
    sizes = []
    monkeypatch.setattr(resize, "resize", lambda *arguments: sizes.append(arguments))
    made = CentralCrop().on_cpu(np.asarray(photograph(10_000, 10, 0)), alone.row(region, 0), Canvas(224))
    assert made.shape == (224, 224, 3)
    assert not sizes, "all of it would be 256 x 256,000 pixels"


def test_processes_share_the_images_and_the_last_batch_is_kept(manifest):
    whole = pixels(EvaluationLoader(manifest, size=32, batch_size=3))
    ranks = [EvaluationLoader(manifest, size=32, batch_size=3, rank=rank, world_size=2) for rank in (0, 1)]
    assert [len(rows) for rows, _ in ranks[0]] == [3, 1]
    parts = [pixels(rank) for rank in ranks]
    assert sorted([*parts[0], *parts[1]]) == list(whole)
    for index, image in (parts[0] | parts[1]).items():
        np.testing.assert_array_equal(image, whole[index])


def test_a_file_that_broke_is_left_out(manifest):
    whole = pixels(EvaluationLoader(manifest, size=32, batch_size=2))
    (manifest.root / "1.png").unlink()
    (manifest.root / "2.png").write_bytes(b"<html></html>")
    (manifest.root / "3.png").write_bytes((manifest.root / "3.png").read_bytes()[:-30])
    (manifest.root / "6.png").write_bytes(b"")
    loader = EvaluationLoader(manifest, size=32, batch_size=2)
    found = pixels(loader)
    assert list(found) == [0, 4, 5]
    for index, image in found.items():
        np.testing.assert_array_equal(image, whole[index])
    assert loader.broken == {
        "1.png": "the file is gone",
        "2.png": "cannot be decoded",
        "3.png": "cannot be decoded",
        "6.png": "the file is empty",
    }
