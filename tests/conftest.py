"""Fixtures shared by all tests: a small folder of labelled JPEGs, and recipes small enough for two cores."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES, PER_CLASS = ("bars", "discs", "noise"), {"train": 8, "val": 4}


def photograph(rng: np.random.Generator, kind: int, width: int, height: int) -> Image.Image:
    """A cheap textured image whose kind can be seen: bars, a disc, or smooth noise."""
    y, x = np.mgrid[0:height, 0:width] / 24
    pattern = [
        np.sin(6 * x + rng.uniform(0, 6)),
        np.hypot(x - rng.uniform(1, 2), y - 1) < 0.7,
        rng.normal(size=x.shape),
    ]
    color = rng.uniform(60, 200, 3) + 50 * pattern[kind][..., None] * rng.uniform(-1, 1, 3)
    return Image.fromarray(np.clip(color + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ of three classes; 24 and 12 images of varying sizes."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in PER_CLASS.items():
        for kind, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                width, height = rng.integers(40, 72, 2)
                photograph(rng, kind, width, height).save(folder / f"{i}.jpg", quality=90)
    return root


@pytest.fixture(scope="session")
def small():
    """`tests.recipes.small`, imported late so that tests of light modules stay light."""
    from tests import recipes

    return recipes.small
