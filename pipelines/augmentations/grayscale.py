"""Random grayscale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Grayscale:
    """Replaces all three channels by the luma (ITU-R 601), with the given probability."""

    probability: float = 0.2
    draws: ClassVar[int] = 1
    op: ClassVar[str] = "photometry"
    place: ClassVar[int] = 1

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """grayscale: (N,) bool."""
        return {"grayscale": uniforms[:, 0] < self.probability}

    def columns(self, parameters):
        return {"grayscale": parameters["grayscale"]}

    def on_cpu(self, image, parameters, canvas):
        import cv2

        if parameters["grayscale"]:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return image
