"""The synthetic set is deterministic, balanced, photograph-like, and its labels hide from colours and pixels."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from clever_fast.commands.synthesize import synthesize
from clever_fast.errors import UserError
from clever_fast.synthetic.scenes import LABELS, photograph
from clever_fast.synthetic.shapes import SHAPES, mask
from clever_fast.synthetic.textures import TEXTURES, fractal


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_the_same_bytes_for_any_number_of_workers(tmp_path, capsys):
    options = {"per_class": 3, "val_per_class": 1, "size": 24, "seed": 5}
    synthesize(tmp_path / "one", workers=1, **options)
    synthesize(tmp_path / "two", workers=2, **options)
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two")
    assert len(set(first.values())) == 40  # no image twice
    assert sorted(first)[:4] == [f"train/bricks/0000{i}.jpg" for i in range(3)] + ["train/cells/00000.jpg"]
    assert sum(name.startswith("val/") for name in first) == 10

    (tmp_path / "one/val/bricks/00000.jpg").unlink()  # the marker says complete: nothing is drawn again
    synthesize(tmp_path / "one", **options)
    assert len(contents(tmp_path / "one")) == 39
    assert "already holds this set" in capsys.readouterr().out
    marker = tmp_path / "one/synthetic.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"complete": False}))
    synthesize(tmp_path / "one", workers=1, **options)
    assert contents(tmp_path / "one") == first
    with pytest.raises(UserError, match=r"holds another synthetic set \(seed 5\)"):
        synthesize(tmp_path / "one", **options | {"seed": 6})


def test_other_people_s_folders_are_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UserError, match="is not empty and not a synthetic set"):
        synthesize(tmp_path, per_class=1)
    with pytest.raises(UserError, match="mine is a file"):
        synthesize(tmp_path / "mine", per_class=1)
    with pytest.raises(UserError, match="--per_class 0 is too small"):
        synthesize(tmp_path / "new", per_class=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def images(kind, split, count, size=48):
    """(10 * count, size, size, 3) float in [0, 1] and labels."""
    files = [photograph(0, split, name, i, kind=kind, size=size) for name in LABELS[kind] for i in range(count)]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files]) / 255
    return pixels, np.repeat(np.arange(10), count)


@pytest.fixture(scope="module")
def sets():
    return {kind: (images(kind, "train", 40), images(kind, "val", 20)) for kind in LABELS}


def nearest(train, labels, test):
    distance = (train**2).sum(1) - 2 * test @ train.T
    return labels[distance.argmin(1)]


@pytest.mark.parametrize("kind", ["texture", "shape"])
def test_neither_colours_nor_pixels_tell_the_class(sets, kind):
    (train, labels), (val, truth) = sets[kind]
    for view in (lambda x: x.mean((1, 2)), lambda x: x.reshape(len(x), -1)):
        accuracy = (nearest(view(train), labels, view(val)) == truth).mean()
        assert accuracy < 0.1 + 4 * (0.1 * 0.9 / len(truth)) ** 0.5  # chance and four deviations


@pytest.mark.parametrize("kind", ["texture", "shape"])
def test_the_power_spectrum_falls_as_in_photographs(sets, kind):
    grey = sets[kind][0][0].mean(-1)
    size = grey.shape[1]
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    band = (frequency > 2 / size) & (frequency < 0.35)
    slopes = np.polyfit(np.log(frequency[band]), np.log(power[:, band].T), 1)[0]
    assert -2.8 < np.median(slopes) < -1.8  # of photographs: about -2 to -2.4, single ones within 0.5 of it
    assert 0.1 < slopes.std() < 0.8


def test_the_class_can_be_seen(sets):
    """Local statistics that know nothing of the generator separate the textures: the labels are not noise."""
    (train, labels), (val, truth) = sets["texture"]

    def energies(pixels):
        grey = pixels.mean(-1)
        grey = (grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True)
        spectrum = np.abs(np.fft.fft2(grey))
        size = grey.shape[1]
        radius = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
        rings = [spectrum[:, (radius > a) & (radius <= a + 0.04)] for a in np.arange(0.02, 0.5, 0.04)]
        return np.stack(
            [statistic for ring in rings for statistic in (np.log(ring.mean(1)), ring.max(1) / ring.mean(1))], 1
        )

    a, b = energies(train), energies(val)
    mean, deviation = a.mean(0), a.std(0)
    accuracy = (nearest((a - mean) / deviation, labels, (b - mean) / deviation) == truth).mean()
    assert accuracy > 0.2


def test_fractal_has_the_spectrum_it_names():
    field = np.mean([np.abs(np.fft.rfft2(fractal(np.random.default_rng(i), (64, 96), 2.0))) ** 2 for i in range(20)], 0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(96))
    inside = (frequency > 0.02) & (frequency < 0.45)
    assert abs(np.polyfit(np.log(frequency[inside]), np.log(field[inside]), 1)[0] + 2) < 0.1


def test_textures_and_shapes_differ_and_stay_in_range():
    rng = np.random.default_rng(0)
    v, u = np.indices((48, 48), np.float32) / 6
    fields = [texture(u, v, 6.0, rng) for texture in TEXTURES.values()]
    assert all(field.min() >= 0 and field.max() <= 1 and field.std() > 0.1 for field in fields)
    masks = [mask((60, 60), name, (30, 30), 25, 0.0, 1.0) for name in SHAPES]
    for i, one in enumerate(masks):
        assert 0.1 < one.mean() < 0.6
        assert all(np.abs(one - other).mean() > 0.02 for other in masks[:i])
    disk = mask((60, 60), "disk", (30, 30), 25, 0.0, 1.0)
    assert disk.sum() == pytest.approx(np.pi * (0.85 * 25) ** 2, rel=0.02)


def test_aspect_and_size():
    sizes = {
        Image.open(io.BytesIO(photograph(0, "val", "dots", i, kind="texture", size=24, aspect=4 / 3))).size
        for i in range(20)
    }
    assert sizes == {(32, 24), (24, 32)}
