"""Rotation about the centre of the view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Rotation:
    """Rotates by U(-degrees, degrees), counter-clockwise, nearest neighbour, keeping the size; corners become black."""

    degrees: float = 90.0
    draws: ClassVar[int] = 1
    op: ClassVar[str] = "deformation"
    place: ClassVar[int] = 0

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """angle: (N,) float32, degrees."""
        return {"angle": (self.degrees * (2 * uniforms[:, 0] - 1)).astype(np.float32)}

    def columns(self, parameters):
        radians = np.deg2rad(parameters["angle"].astype(np.float64))
        cos, sin = np.cos(radians), np.sin(radians)
        return {"xx": cos, "xy": -sin, "yx": sin, "yy": cos}

    def on_cpu(self, image, parameters, canvas):
        import cv2

        middle = (canvas.size - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), float(parameters["angle"]), 1)
        return cv2.warpAffine(image, matrix, (canvas.size, canvas.size), flags=cv2.INTER_NEAREST)
