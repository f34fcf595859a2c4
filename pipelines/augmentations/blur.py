"""Random gaussian blur."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class GaussianBlur:
    """Blurs with a sigma drawn uniformly from `sigma` (pixels of the view), with the given probability."""

    probability: float
    sigma: tuple[float, float] = (0.1, 2.0)
    draws: ClassVar[int] = 2
    op: ClassVar[str] = "photometry"
    place: ClassVar[int] = 2

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """blur: (N,) bool; blur_sigma: (N,) float32, pixels."""
        low, high = self.sigma
        return {
            "blur": uniforms[:, 0] < self.probability,
            "blur_sigma": (low + (high - low) * uniforms[:, 1]).astype(np.float32),
        }

    def columns(self, parameters):
        return {"blur_sigma": np.where(parameters["blur"], parameters["blur_sigma"], 0)}

    def on_cpu(self, image, parameters, canvas):
        """Taps up to three sigma, the border reflected."""
        import cv2

        if parameters["blur"]:
            sigma = float(parameters["blur_sigma"])
            taps = cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma)
            image = cv2.sepFilter2D(image, -1, taps, taps)  # as GaussianBlur, in half of its time
        return image
