"""Each operation against torchvision and PIL; the hue's arithmetic; the statistics of the elastic deformation."""

import numpy as np
import pytest

from clever_fast.benchmarks.checks import alone, parity, references
from clever_fast.benchmarks.checks.references import JITTER
from clever_fast.errors import UserError
from clever_fast.pipelines.augmentations import ColorJitter, Elastic, GaussianBlur, Grayscale, Rotation, Solarize
from clever_fast.pipelines.augmentations.elastic import at_every_pixel, pixel_map, smooth_field
from clever_fast.pipelines.augmentations.jitter import jitter
from clever_fast.pipelines.views import Canvas

# mean and 99th percentile of the absolute difference of pixel values from 0 to 255; the published ones stand in
# docs/augmentations.md
BOUNDS = {
    ("decoding", "PIL"): (0.05, 1),
    # torch's resize in place of Pillow's: at most one grey level apart
    (f"crop and flip ({parity.CPU})", "torchvision, bicubic"): (0.1, 1),
    (f"crop and flip ({parity.CPU})", "torchvision, bilinear"): (0.1, 1),
    (f"crop and flip ({parity.GPU})", "torchvision, bicubic"): (0.4, 2),
    (f"crop and flip ({parity.GPU})", "torchvision, bilinear"): (0.4, 2),
    # OpenCV before 5.0 rounds the place to 1/32 px
    (f"elastic ({parity.CPU})", "torchvision's elastic of the same displacement"): (0.5, 4),
    (f"elastic ({parity.GPU})", "torchvision's elastic of the same displacement"): (0.1, 1),
    (f"blur ({parity.CPU})", "PIL's boxes"): (1.0, 7),
    **{
        (f"{name} ({graph})", reference): bound
        for graph in (parity.CPU, parity.GPU)
        for (name, reference), bound in {
            ("rotation", "torchvision, nearest"): (0.2, 2),
            ("brightness", "PIL"): (0.7, 2),
            ("contrast", "PIL"): (0.7, 2),
            ("saturation", "PIL"): (0.7, 2),
            ("hue", "PIL"): (1.0, 6),
            # torchvision's clamps between the operations, and the place of the mean: see the last row
            ("colour jitter", "PIL, random order"): (3.5, 22),
            ("grayscale", "PIL"): (0.2, 1),
            ("blur", "torchvision"): (0.1, 1),
            ("solarize", "PIL"): (0, 0),
        }.items()
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def differences() -> dict[tuple[str, str], parity.Difference]:
    return {(row.operation, row.reference): row for row in parity.operations(count=6)}


@pytest.mark.parametrize("row", BOUNDS, ids=lambda row: f"{row[0]} against {row[1]}")
def test_an_operation_is_near_its_reference(differences, row):
    mean, p99 = BOUNDS[row]
    assert differences[row].mean <= mean
    assert differences[row].p99 <= p99


def test_the_fixed_order_of_the_jitter_is_not_much_farther_than_two_random_ones(differences):
    random = differences["colour jitter, PIL's own", "PIL, another order"].mean
    assert differences[f"colour jitter ({parity.CPU})", "PIL, random order"].mean < random + 1.5


def test_neutral_jitter_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(jitter(image, 0, 1, 1, 1), image)
    neutral = {"jitter": np.array([True]), **{name: np.full(1, name != "hue", np.float32) for name in JITTER}}
    np.testing.assert_array_equal(alone.run_steps(ColorJitter(), [image], neutral)[0], image)


@pytest.mark.parametrize(
    ("augmentation", "coin"),
    [
        (ColorJitter(probability=0.5), "jitter"),
        (Grayscale(0.5), "grayscale"),
        (GaussianBlur(0.5, sigma=(1.0, 2.0)), "blur"),
        (Solarize(0.5), "solarize"),
        (Elastic(probability=0.5), "elastic"),
    ],
)
def test_only_the_samples_that_drew_it_change(augmentation, coin):
    generator = np.random.default_rng(2)
    images = list(generator.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    drawn = augmentation.sample(generator.random((8, augmentation.draws)), 32)
    for results in (run(augmentation, images, drawn) for run in (alone.run_on_cpu, alone.run_steps)):
        changed = [not np.array_equal(a, b) for a, b in zip(images, results)]
        np.testing.assert_array_equal(changed, drawn[coin])
        assert 0 < sum(changed) < 8


def test_coins_fall_with_their_probability():
    uniforms = np.random.default_rng(0).random((20000, 7))
    for augmentation, name, probability in (
        (ColorJitter(), "jitter", 0.8), (Grayscale(), "grayscale", 0.2), (GaussianBlur(0.1), "blur", 0.1),
        (GaussianBlur(1.0), "blur", 1.0), (Solarize(0.2), "solarize", 0.2), (Elastic(), "elastic", 0.5),
    ):  # fmt: skip
        drawn = augmentation.sample(uniforms[:, : augmentation.draws], 96)
        assert abs(drawn[name].mean() - probability) < 0.015, name
    sigma = GaussianBlur(1.0).sample(uniforms[:, :2], 96)["blur_sigma"]
    angle = Rotation().sample(uniforms[:, :1], 96)["angle"]
    for values, low, high in ((sigma, 0.1, 2.0), (angle, -90.0, 90.0)):
        quantiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
        np.testing.assert_allclose(quantiles, np.linspace(low, high, 5), atol=0.02 * (high - low))


def _cut(size: int, count: int, seed: int) -> dict[str, np.ndarray]:
    return Elastic().sample(np.random.default_rng(seed).random((count, Elastic.draws)), size)


def _displacements(size: int, count: int, seed: int) -> np.ndarray:
    """(count, size, size, 2) pixels (x, y), with alpha 100, cut from the field of `seed`."""
    canvas, cut = Canvas(size, at_every_pixel(smooth_field(seed))), _cut(size, count, seed)
    y, x = np.mgrid[:size, :size]
    maps = [np.stack(pixel_map(alone.row(cut, i), canvas), axis=-1) for i in range(count)]
    return np.stack(maps) - np.stack([x, y], axis=-1)


@pytest.mark.parametrize(("size", "count"), [(96, 400), (224, 80)])
def test_elastic_has_the_statistics_of_its_definition(size, count):
    for seed in (0, 1, 2):
        moved = _displacements(size, count, seed)[:, 20:-20, 20:-20]  # the border is another test's
        np.testing.assert_allclose(moved.std(axis=(0, 1, 2)), 1.63, rtol=0.03)
        variance = (moved**2).mean()
        for lag in (2, 5, 10, 20):  # white noise blurred with sigma 5
            expected = np.exp(-(lag**2) / 100)
            assert abs((moved[:, :, :-lag] * moved[:, :, lag:]).mean() / variance - expected) < 0.04
            assert abs((moved[:, :-lag] * moved[:, lag:]).mean() / variance - expected) < 0.04
        assert abs(np.corrcoef(moved[..., 0].ravel(), moved[..., 1].ravel())[0, 1]) < 0.05
        assert abs(moved.mean()) < 0.1


@pytest.mark.parametrize(("size", "count"), [(96, 600), (48, 900)])
def test_at_the_border_elastic_moves_as_much_as_torchvision_s(size, count):
    """Root mean squares of corners, edges and the inside; torchvision's noise is reflected, so that it moves more."""
    middle, edge = slice(size // 2 - 4, size // 2 + 4), [0, 1, 2, -3, -2, -1]
    places = {"inside": (middle, middle), "edge": (edge, middle), "corner": (edge, edge[:3])}
    theirs, ours = references.displacements(size, count), _displacements(size, count, 0)
    found = {}
    for name, (rows, columns) in places.items():
        found[name], expected = (np.sqrt((m[:, rows][:, :, columns] ** 2).mean()) for m in (ours, theirs))
        assert found[name] == pytest.approx(expected, rel=0.08), name
    assert found["corner"] > 1.2 * found["edge"] > 1.4 * found["inside"]
    assert np.sqrt((ours**2).mean()) == pytest.approx(np.sqrt((theirs**2).mean()), rel=0.03)


@pytest.mark.parametrize("size", [96, 97, 1008])
def test_both_ways_deform_alike(size):
    """OpenCV with a slice of the field, and the op with the place and the direction of the same slice."""
    generator = np.random.default_rng(3)
    images = [np.asarray(parity.photograph(generator, size, size)) for _ in range(8)]
    elastic = Elastic(alpha=400.0, probability=1.0)
    uniforms = generator.random((8, elastic.draws))
    uniforms[:, 3:5] = [(0, 0), (0, 0.9), (0.9, 0), (0.9, 0.9)] * 2  # every direction of the window
    uniforms[:4, 1:3], uniforms[4:, 1:3] = 0, 1 - 1e-9  # in the field's corners
    cut = elastic.sample(uniforms, size)
    ways = [run(elastic, images, cut) for run in (alone.run_steps, alone.run_on_cpu)]
    made = parity.difference("elastic", "OpenCV", *ways)
    assert made.mean < 0.5  # OpenCV before 5.0 rounds places to 1/32 px
    assert made.p99 < 5


def test_elastic_is_bounded_by_its_field():
    Elastic().sample(np.zeros((1, 7)), 1008)
    with pytest.raises(UserError, match="1009 px"):
        Elastic().sample(np.zeros((1, 7)), 1009)
