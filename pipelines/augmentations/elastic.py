"""Elastic deformation cut from one smooth random field.

torchvision blurs fresh noise for every image: U(-1, 1) for each axis, a gaussian of 41 taps, times alpha / size in
units of the sampling grid, that is alpha / 2 pixels. Here the noise is blurred once per seed; a view cuts its
displacement out of that field at a random place, mirrored at random, with a random sign for each axis. Standard
deviation, correlation length and the independence of the axes are those of the definition. torchvision reflects its
noise at the border of a view, which makes the displacement larger there; `border_gain` does the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from clever_fast.errors import UserError

FIELD_SIZE = 1024  # pixels of a view
STRIDE = 4  # pixels between the samples that are kept: the blurred field holds next to nothing finer than 2 * STRIDE
MARGIN = 2  # samples around a window that cubic interpolation reads
TAPS = 41
SIGMA = 5.0  # pixels
STREAM = 2  # of Philox; 0 and 1 are the sampler's
# What cubic interpolation leaves of the standard deviation: the mean over all phases of w C w, for its four weights w
# and the field's autocorrelation C_ij = exp(-(STRIDE (i - j))^2 / (4 SIGMA^2)).
FLATTENING = 0.99355


def smooth_field(seed: int) -> np.ndarray:
    """(FIELD_SIZE / STRIDE, same, 2) float32: the blurred noise of the x and the y axis, before alpha.

    Its standard deviation is set to the expected one, (1/3)^(1/2) * sum(taps^2): the sample's own is off by a percent.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, 0, STREAM]))
    noise = generator.uniform(-1, 1, (2, FIELD_SIZE, FIELD_SIZE))
    taps = _taps()
    # a periodic blur: the field has no border at which its statistics would differ
    response = np.fft.fft(np.roll(np.pad(taps, (0, FIELD_SIZE - TAPS)), -(TAPS // 2))).real
    field = np.fft.irfft2(np.fft.rfft2(noise) * response[:, None] * response[: FIELD_SIZE // 2 + 1], s=noise.shape[1:])
    field = field[:, ::STRIDE, ::STRIDE]
    field *= (taps**2).sum() / np.sqrt(3) / FLATTENING / field.std(axis=(1, 2), keepdims=True)
    return np.ascontiguousarray(field.transpose(1, 2, 0), np.float32)


@lru_cache
def border_gain(size: int) -> np.ndarray:
    """(size,) float32: the standard deviation of a displacement along an axis of a view, 1 away from its border.

    That at a pixel is the product of its row's and its column's.

    Along either axis a pixel sees the noise of sum_k w_k n(reflect(y + k)), so some of it twice: its variance is that
    of the summed weights, over sum_k w_k^2. It is 1.37 at an edge, 1.89 in a corner.
    """
    taps, places = _taps(), np.pad(np.arange(size), TAPS // 2, mode="reflect" if size > 1 else "edge")
    weights = np.zeros((size, size))
    for y in range(size):
        np.add.at(weights[y], places[y : y + TAPS], taps)
    return np.sqrt((weights**2).sum(1) / (taps**2).sum()).astype(np.float32)


def _taps() -> np.ndarray:
    taps = np.exp(-0.5 * ((np.arange(TAPS) - TAPS // 2) / SIGMA) ** 2)
    return taps / taps.sum()


def at_every_pixel(field: np.ndarray) -> np.ndarray:
    """(2, FIELD_SIZE, FIELD_SIZE) float32: the x and the y axis of a smooth field at full resolution.

    The interpolation is Keys' cubic with a = -1/2.
    """
    place = (np.arange(FIELD_SIZE) + 0.5) / STRIDE - 0.5
    x = np.abs(place[:, None] - np.arange(FIELD_SIZE // STRIDE))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return (weights @ field.transpose(2, 0, 1) @ weights.T).astype(np.float32)


@dataclass(frozen=True)
class Elastic:
    """Moves every pixel by a smooth random displacement, with the given probability; bilinear, black outside.

    alpha: strength; the standard deviation of the displacement is 0.01628 alpha pixels at any size of the view, and
    more within 20 pixels of its border.
    """

    alpha: float = 100.0
    probability: float = 0.5
    draws: ClassVar[int] = 7
    op: ClassVar[str] = "deformation"
    place: ClassVar[int] = 1

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """elastic: (N,) bool; elastic_start, elastic_end: (N, 2) float32, the (y, x) window in samples of the field, at
        whole pixels; elastic_scale: (N, 2) float32, pixels per unit of the field for x and y."""
        extent, room = size / STRIDE, FIELD_SIZE - size - 2 * MARGIN * STRIDE
        if room < 0:
            raise UserError(f"elastic views of {size} px are too large: at most {FIELD_SIZE - 2 * MARGIN * STRIDE} px")
        start = MARGIN + np.floor((room + 1) * uniforms[:, 1:3]) / STRIDE
        mirrored = uniforms[:, 3:5] < 0.5
        return {
            "elastic": uniforms[:, 0] < self.probability,
            "elastic_start": np.where(mirrored, start + extent, start).astype(np.float32),
            "elastic_end": np.where(mirrored, start, start + extent).astype(np.float32),
            "elastic_scale": (self.alpha / 2 * np.where(uniforms[:, 5:7] < 0.5, -1, 1)).astype(np.float32),
        }

    def columns(self, parameters):
        first, step = _window(parameters["elastic_start"], parameters["elastic_end"])
        scale = np.where(parameters["elastic"][:, None], parameters["elastic_scale"], 0)
        return {
            "elastic_y": first[:, 0],
            "elastic_x": first[:, 1],
            "elastic_step_y": step[:, 0],
            "elastic_step_x": step[:, 1],
            "elastic_scale_y": scale[:, 1],
            "elastic_scale_x": scale[:, 0],
        }

    def on_cpu(self, image, parameters, canvas):
        import cv2

        if parameters["elastic"]:
            x, y = pixel_map(parameters, canvas)
            image = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return image


def pixel_map(parameters, canvas) -> tuple[np.ndarray, np.ndarray]:
    """The pixel that each pixel of one view shows, (size, size) float32 of x and of y."""
    (top, left), (down, right) = _window(parameters["elastic_start"], parameters["elastic_end"])
    rows, columns = _slice(int(top), int(down), canvas.size), _slice(int(left), int(right), canvas.size)
    identity = np.arange(canvas.size, dtype=np.float32)
    gain = border_gain(canvas.size)
    scale = parameters["elastic_scale"][:, None, None] * (gain[:, None] * gain)
    x, y = scale * canvas.elastic_field[:, rows, columns]
    return x + identity, y + identity[:, None]


def _window(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of windows in samples of the kept field: their first pixel of the field at every pixel, and the step, 1 or -1."""
    backwards = end < start
    return STRIDE * start - backwards, np.where(backwards, -1, 1)


def _slice(first: int, step: int, size: int) -> slice:
    last = first + step * size
    return slice(first, last if last >= 0 else None, step)
