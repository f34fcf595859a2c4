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
    op: ClassVar[str] = "photometry"
    place: ClassVar[int] = 0

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """jitter: (N,) bool; brightness, contrast, saturation: (N,) float32 factors; hue: (N,) float32 turns."""
        ranges = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        values = ranges * (2 * uniforms[:, 1:] - 1) + [1, 1, 1, 0]
        names = ("brightness", "contrast", "saturation", "hue")
        return {"jitter": uniforms[:, 0] < self.probability, **dict(zip(names, values.T.astype(np.float32, order="C")))}

    def columns(self, parameters):
        neutral = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0}
        return {name: np.where(parameters["jitter"], parameters[name], value) for name, value in neutral.items()}

    def on_cpu(self, image, parameters, canvas):
        if parameters["jitter"]:
            names = ("hue", "brightness", "contrast", "saturation")
            image = jitter(image, *(float(parameters[name]) for name in names))
        return image


def jitter(image: np.ndarray, hue: float, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Of one image with OpenCV; the hue has 256 steps, as in PIL."""
    import cv2

    if steps := round(hue * 256):
        turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        rows = turned.reshape(len(turned), -1)  # whole rows are added faster than every third value
        np.add(rows, np.tile(np.array([steps % 256, 0, 0], np.uint8), turned.shape[1]), out=rows)
        image = cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL)
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * LUMA)
    offset = brightness * (1 - contrast) * float(LUMA @ cv2.mean(image)[:3])
    return cv2.transform(image, np.column_stack([matrix, np.full(3, offset)]))
