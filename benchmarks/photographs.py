"""Seeded images with the statistics of photographs, on which the cost of JPEG and the error of resampling depend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SLOPE = 2.2  # of the power spectrum, 1 / frequency^SLOPE; photographs lie near 2


def photograph(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """An RGB image: coloured 1/f noise, a few overlapping flat-lit shapes with hard edges, and sensor noise."""
    light = _fractal(generator, width, height)
    tint = np.stack([light + 0.25 * _fractal(generator, width, height) for _ in range(3)], axis=-1)
    values = 255 * generator.uniform(0.3, 0.6, 3) + 45 * tint
    shapes = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(shapes)
    for _ in range(6):
        x, y = generator.uniform(0, (width, height))
        radius = generator.uniform(0.05, 0.3) * min(width, height)
        color = tuple(int(c) for c in generator.integers(0, 256, 3))
        draw.regular_polygon((x, y, radius), int(generator.integers(3, 9)), generator.uniform(0, 360), (*color, 150))
    over = np.asarray(shapes, np.float64)
    alpha = over[..., 3:] / 255
    values = values * (1 - alpha) + (over[..., :3] + 20 * light[..., None]) * alpha + generator.normal(0, 4, tint.shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def write_jpegs(folder: Path, count: int, size: tuple[int, int], *, seed: int = 0, quality: int = 90) -> list[Path]:
    """`count` files of `size` (width, height) in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05d}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        photograph(np.random.default_rng([seed, i]), *size).save(path, quality=quality)
    return paths


def _fractal(generator: np.random.Generator, width: int, height: int) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf  # no mean
    spectrum = np.fft.rfft2(generator.standard_normal((height, width))) / frequency ** (SLOPE / 2)
    field = np.fft.irfft2(spectrum, s=(height, width))
    return field / field.std()
