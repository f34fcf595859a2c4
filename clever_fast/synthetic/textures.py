"""Ten kinds of texture as grey fields, and their colouring.

A texture maps (u, v, pixels, rng) to a field in [0, 1]: u and v are (H, W) float32 coordinates in cells of the pattern,
already scaled, turned and warped; `pixels` is the width of a cell in pixels, which sets how soft an edge must be.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=8)
def _log_frequency(height: int, width: int) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf  # no mean
    return np.log(frequency)


def fractal(rng: np.random.Generator, shape: tuple[int, int], beta: float) -> np.ndarray:
    """Gaussian noise with a power spectrum of f^-beta, zero mean and unit deviation; beta 2 is that of photographs."""
    spectrum = rng.standard_normal((shape[0], shape[1] // 2 + 1, 2)).view(np.complex128)[..., 0]
    field = np.fft.irfft2(spectrum * np.exp(-beta / 2 * _log_frequency(*shape)), s=shape)
    return (field / field.std()).astype(np.float32)


def _triangle(x):  # 0 at whole numbers, 1 half way
    return 1 - 2 * np.abs(x - np.floor(x) - np.float32(0.5))


def _edge(distance, pixels):  # a step at 0, as wide as a pixel
    return np.clip(distance * pixels + 0.5, 0, 1)


def _hash(i, j):  # a fixed random number in [0, 1) for each cell
    x = np.sin(i * 127.1 + j * 311.7) * 43758.5
    return x - np.floor(x)


def stripes(u, v, pixels, rng):
    return _edge((_triangle(u) - rng.uniform(0.35, 0.65)) / 2, pixels)


def checks(u, v, pixels, rng):
    a, b = (_edge((_triangle(x / 2) - 0.5), pixels) for x in (u, v))
    return a + b - 2 * a * b


def dots(u, v, pixels, rng):
    u = u + rng.integers(2) * 0.5 * np.floor(v)
    return _edge(rng.uniform(0.25, 0.38) - np.hypot(u - np.floor(u) - 0.5, v - np.floor(v) - 0.5), pixels)


def bricks(u, v, pixels, rng):
    row = np.floor(v)
    u = u / 2 + row * 0.5
    mortar = np.minimum(_triangle(u), _triangle(v) / 2)
    return _edge(mortar - rng.uniform(0.06, 0.12), pixels) * (1 - 0.4 * _hash(np.floor(u), row))


def weave(u, v, pixels, rng):
    over = (np.floor(u) + np.floor(v)) % 2
    return np.where(over, np.abs(np.sin(np.pi * u)), np.abs(np.sin(np.pi * v))) * (1 - 0.25 * over)


def zigzag(u, v, pixels, rng):
    return _edge((_triangle(v + rng.uniform(0.6, 1.0) * _triangle(u / 2)) - rng.uniform(0.35, 0.65)) / 2, pixels)


def rings(u, v, pixels, rng):
    away = np.hypot(u - rng.normal() * 0.5, (v - rng.normal() * 0.5) * rng.uniform(1, 1.8))
    return 0.5 + 0.5 * np.sin(2 * np.pi * (away + rng.uniform()))


def veins(u, v, pixels, rng):
    return np.clip(np.abs(fractal(rng, u.shape, rng.uniform(2.6, 3.2))) * rng.uniform(1.0, 2.0), 0, 1)


def cloud(u, v, pixels, rng):
    return np.clip(0.5 + 0.25 * fractal(rng, u.shape, rng.uniform(1.8, 2.6)), 0, 1)


def cells(u, v, pixels, rng):
    i, j = np.floor(u), np.floor(v)
    first = np.full(u.shape, np.inf, np.float32)
    second = first
    for a in (-1, 0, 1):
        for b in (-1, 0, 1):
            k, l = i + a, j + b
            distance = np.hypot(k + _hash(k, l) - u, l + _hash(l + 57, k) - v)
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return _edge(second - first - rng.uniform(0.08, 0.16), pixels) * (1 - 0.5 * first)


TEXTURES = {
    texture.__name__: texture for texture in (bricks, cells, checks, cloud, dots, rings, stripes, veins, weave, zigzag)
}


Palette = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


def surface(rng: np.random.Generator, shape: tuple[int, int], name: str, palette: Palette) -> np.ndarray:
    """A (H, W, 3) float32 surface in [0, 1] of the named texture, in two colours that `palette` draws."""
    short = min(shape)
    y, x = (np.indices(shape, np.float32) - (np.array(shape).reshape(2, 1, 1) - 1) / 2).astype(np.float32) / short
    angle, count = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(np.log(4), np.log(8)))  # cells along the shorter side
    warp = rng.uniform(0.02, 0.12)
    u = count * (x * np.cos(angle) + y * np.sin(angle)) + warp * fractal(rng, shape, 3) + rng.uniform(0, 64)
    v = count * (y * np.cos(angle) - x * np.sin(angle)) + warp * fractal(rng, shape, 3) + rng.uniform(0, 64)
    if name == "rings":  # the only one with a centre, which must be in sight
        u, v = u - u.mean(), v - v.mean()
    field = TEXTURES[name](u.astype(np.float32), v.astype(np.float32), short / count, rng)
    first, second = palette(rng)
    field = field[..., None].astype(np.float32)
    grain = rng.uniform(0.03, 0.1) * fractal(rng, shape, 1.5)[..., None]
    return first + (second - first) * field + grain


def greys(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two nearly grey RGB colours of much the same contrast around the middle, either of them the lighter one."""
    contrast, middle = rng.uniform(0.35, 0.6) * rng.choice([-1, 1]), rng.normal(0.5, 0.04)
    pair = np.array([[middle - contrast / 2], [middle + contrast / 2]]) + rng.normal(0, 0.03, (2, 3))
    return tuple(pair.clip(0, 1).astype(np.float32))


def colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two RGB colours whose luminance differs by 0.25 to 0.8, mostly as little saturated as in photographs."""
    while True:
        luminance = rng.uniform(0.05, 0.95, 2)
        if 0.25 < abs(luminance[0] - luminance[1]) < 0.8:
            chroma = rng.normal(0, 1, (2, 3)) * rng.gamma(2, 0.08, (2, 1))
            pair = (luminance[:, None] + chroma).clip(0, 1).astype(np.float32)
            return pair[0], pair[1]
