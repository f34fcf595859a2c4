"""Colour jitter: brightness, contrast, saturation and hue.

Brightness, contrast and saturation are affine in the colour: y = p x + q luma(x) + o, and a hue shift commutes with a
positive scale and a grey offset. So the hue is shifted first, exactly as in HSV, and the other three are one matrix and
one offset, with one rounding and one clamp at the end. torchvision draws the order of the four at random; without
the clamps in between only the luma after a hue shift depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as in PIL
DIFFERENCES = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]], np.float32)  # (G - B, B - R, R - G)


@dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue by factors drawn uniformly, with the given probability.

    brightness, contrast, saturation: a factor from U(1 - value, 1 + value). hue: a shift from U(-value, value) turns.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    probability: float = 0.8
    draws: ClassVar[int] = 5

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """jitter: (N,) bool; brightness, contrast, saturation: (N,) float32 factors; hue: (N,) float32 turns."""
        ranges = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        values = ranges * (2 * uniforms[:, 1:] - 1) + [1, 1, 1, 0]
        names = ("brightness", "contrast", "saturation", "hue")
        return {"jitter": uniforms[:, 0] < self.probability, **dict(zip(names, values.T.astype(np.float32, order="C")))}

    def apply(self, images, parameters, canvas):
        if parameters["jitter"]:
            factors = [parameters[name] for name in ("brightness", "contrast", "saturation")]
            images = adjust(shift_hue(images, parameters["hue"], canvas.device), *factors, canvas.device)
        return images

    def on_cpu(self, image, parameters, canvas):
        if parameters["jitter"]:
            names = ("hue", "brightness", "contrast", "saturation")
            image = jitter(image, *(float(parameters[name]) for name in names))
        return image


def shift_hue(images, hue, device: str):
    """Node: the HSV hue of uint8 images turned by `hue` (CPU scalars, at most 0.1 turns), in float32.

    For the channel X and its two neighbours Y, Z in cyclic order, with V = max, m = min, C = V - m, the distance of
    the hue from X in sixths of a turn, times C, is u = q + w + 2 min(C - q, w), where q = |Y - Z| and w = V - X; its
    sign is that of Y - Z. A channel is m + clamp(2C - |u|, 0, C) at any hue, so no hue is ever computed.
    """
    from clever_fast.pipelines.dali import fn, math, types

    difference = fn.coord_transform(images, M=DIFFERENCES.ravel().tolist(), dtype=types.FLOAT)
    highest = fn.cast(fn.reductions.max(images, axes=[2], keep_dims=True), dtype=types.FLOAT)
    lowest = fn.cast(fn.reductions.min(images, axes=[2], keep_dims=True), dtype=types.FLOAT)
    sextants = hue * 6.0
    if device == "gpu":
        sextants = sextants.gpu()
    chroma = highest - lowest
    below = highest - images
    gap = math.abs(difference)
    distance = gap + below + 2.0 * math.min(chroma - gap, below)
    turned = distance + math.clamp(difference, -1.0, 1.0) * (sextants * chroma)
    return lowest + math.clamp(2.0 * chroma - math.abs(turned), 0.0, chroma)


def adjust(images, brightness, contrast, saturation, device: str):
    """Node: brightness, contrast about the mean luma and saturation of float32 images, as uint8; CPU scalar factors."""
    from clever_fast.pipelines.dali import fn, types

    scale = brightness * contrast
    matrix = scale * saturation * types.Constant(np.eye(3, dtype=np.float32)) + scale * (
        1.0 - saturation
    ) * types.Constant(np.tile(LUMA, (3, 1)))
    offset = brightness * (1.0 - contrast)
    if device == "gpu":
        offset = offset.gpu()
    luma = fn.reductions.mean(fn.coord_transform(images, M=LUMA.tolist(), dtype=types.FLOAT))
    return fn.cast(fn.coord_transform(images, M=matrix, dtype=types.FLOAT) + offset * luma, dtype=types.UINT8)


def jitter(image: np.ndarray, hue: float, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """The same of one image with OpenCV; the hue has 256 steps, as in PIL."""
    import cv2

    if steps := round(hue * 256):
        turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        turned[..., 0] += np.uint8(steps % 256)
        image = cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL)
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * LUMA)
    offset = brightness * (1 - contrast) * float(LUMA @ cv2.mean(image)[:3])
    return cv2.transform(image, np.column_stack([matrix, np.full(3, offset)]))
