"""Perturbed test images: functions of seed, repetition and image alone, and each what its name says."""

from pathlib import Path

import numpy as np
import pytest

from clever_fast.benchmarks.checks import alone
from clever_fast.pipelines.augmentations import Flip, Turn
from clever_fast.pipelines.evaluation import EvaluationLoader
from clever_fast.pipelines.loader_options import LoaderOptions
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.perturbations import ORIG, PERTURBATIONS, Perturbation
from tests.images import encode, photograph

COUNT = 7
HARDEST = PERTURBATIONS["CJ+Ro+ET100"]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    sizes = np.random.default_rng(0).integers(50, 90, (COUNT, 2)).astype(np.int32)
    paths = [f"{i}.png" for i in range(COUNT)]
    for seed, (path, (width, height)) in enumerate(zip(paths, sizes)):
        (tmp_path / path).write_bytes(encode(photograph(int(width), int(height), seed), "PNG"))
    return Manifest(tmp_path, paths, sizes, np.zeros(COUNT, np.int64), ["photograph"], {}, "test")


def pixels(manifest: Manifest, perturbation: Perturbation = HARDEST, **options) -> dict[int, np.ndarray]:
    options = {"size": 48, "batch_size": 4, "repetitions": 2, "seed": 3} | options
    loader = EvaluationLoader(manifest, perturbation=perturbation, **options)
    return {int(i): image for rows, images in loader for i, image in zip(rows, images)}


def assert_equal(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for index in left:
        np.testing.assert_array_equal(left[index], right[index], err_msg=str(index))


def test_they_depend_on_neither_batch_nor_processes_nor_threads(manifest):
    whole = pixels(manifest)
    assert list(whole) == list(range(2 * COUNT))
    assert_equal(pixels(manifest), whole)
    assert_equal(pixels(manifest, batch_size=5, options=LoaderOptions(threads=1)), whole)
    ranks = [pixels(manifest, rank=rank, world_size=3) for rank in range(3)]
    assert [len(rank) for rank in ranks] == [5, 5, 4]
    assert_equal(dict(sorted((ranks[0] | ranks[1] | ranks[2]).items())), whole)


def test_repetitions_seeds_and_images_draw_their_own_numbers(manifest):
    whole, other = pixels(manifest), pixels(manifest, seed=4)
    for index in range(COUNT):
        assert np.abs(whole[index] - whole[index + COUNT]).mean() > 0.05
        assert np.abs(whole[index] - other[index]).mean() > 0.05


def test_each_does_what_its_name_says(manifest):
    plain = pixels(manifest, Perturbation("bilinear"), repetitions=1)
    assert np.abs(pixels(manifest, ORIG, repetitions=1)[0] - plain[0]).mean() > 1e-3  # bicubic
    flipped = pixels(manifest, Perturbation("Flip", (Flip(1.0),)), repetitions=1)
    half = pixels(manifest, Perturbation("Flip", (Flip(),)), repetitions=8)
    mirrored = [np.array_equal(image, flipped[i % COUNT]) for i, image in half.items()]
    assert all(same or np.array_equal(half[i], plain[i % COUNT]) for i, same in enumerate(mirrored))
    assert 14 < sum(mirrored) < 42  # of 56
    for quarters in range(4):
        turned = pixels(manifest, Perturbation("turned", (Turn(quarters),)), repetitions=1)
        for index, image in turned.items():
            np.testing.assert_array_equal(image, np.rot90(plain[index], quarters))
            np.testing.assert_array_equal(flipped[index], plain[index][:, ::-1])
    coloured, mirrored = (pixels(manifest, PERTURBATIONS[name]) for name in ("CJ", "CJ+Flip"))
    for index, image in mirrored.items():
        np.testing.assert_array_equal(image, coloured[index][:, ::-1])
    grey = pixels(manifest, PERTURBATIONS["Ro"])
    corners = [image[0, 0].sum() for image in grey.values()]
    assert np.isclose(corners, min(corners)).sum() > COUNT  # turned in from outside: black


def test_published_names_have_the_published_operations():
    kinds = {name: [type(a).__name__ for a in value.augmentations] for name, value in PERTURBATIONS.items()}
    colour = "ColorJitter"
    assert kinds["Orig"] == []
    assert kinds["CJ"] == [colour]
    assert kinds["CJ+Flip"] == [colour, "Flip"]
    assert kinds["CJ+Ro"] == ["Rotation", colour]
    for alpha in (50, 100, 150):
        assert kinds[f"CJ+Ro+ET{alpha}"] == ["Rotation", colour, "Elastic"]
        assert PERTURBATIONS[f"CJ+Ro+ET{alpha}"].augmentations[2].alpha == alpha
        assert PERTURBATIONS[f"CJ+Ro+ET{alpha}"].augmentations[2].probability == 1
    assert PERTURBATIONS["CJ+Flip"].augmentations[1].probability == 1
    jitter = PERTURBATIONS["CJ"].augmentations[0]
    values = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.probability)
    assert values == (0.4, 0.4, 0.4, 0.1, 1)


@pytest.mark.parametrize("augmentation", [Flip(), *(Turn(quarters) for quarters in range(4))], ids=str)
def test_both_ways_move_pixels_alike(augmentation):
    images = [np.asarray(photograph(48, 48, seed)) for seed in range(4)]
    parameters = {"flip": np.array([True, False, False, True])}
    ways = (run(augmentation, images, parameters) for run in (alone.run_steps, alone.run_on_cpu))
    for ours, theirs in zip(*ways, strict=True):
        np.testing.assert_array_equal(ours, theirs)
