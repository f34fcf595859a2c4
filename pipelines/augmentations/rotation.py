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

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """angle: (N,) float32, degrees."""
        return {"angle": (self.degrees * (2 * uniforms[:, 0] - 1)).astype(np.float32)}

    def apply(self, images, parameters, canvas):
        from clever_fast.pipelines.dali import fn, types

        return fn.rotate(images, angle=parameters["angle"], keep_size=True, fill_value=0, interp_type=types.INTERP_NN)

    def on_cpu(self, image, parameters, canvas):
        import cv2

        middle = (canvas.size - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), float(parameters["angle"]), 1)
        return cv2.warpAffine(image, matrix, (canvas.size, canvas.size), flags=cv2.INTER_NEAREST)
