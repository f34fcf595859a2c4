"""Random gaussian blur."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clever_fast.pipelines.augmentations.opencv import each_sample


@dataclass(frozen=True)
class GaussianBlur:
    """Blurs with a sigma drawn uniformly from `sigma` (pixels of the view), with the given probability."""

    probability: float
    sigma: tuple[float, float] = (0.1, 2.0)
    draws: ClassVar[int] = 2

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """blur: (N,) bool; blur_sigma: (N,) float32, pixels."""
        low, high = self.sigma
        return {
            "blur": uniforms[:, 0] < self.probability,
            "blur_sigma": (low + (high - low) * uniforms[:, 1]).astype(np.float32),
        }

    def apply(self, images, parameters, canvas):
        from clever_fast.pipelines.dali import fn

        if parameters["blur"]:
            sigma = parameters["blur_sigma"]
            if canvas.device == "gpu":
                images = fn.gaussian_blur(images, sigma=sigma)
            else:  # DALI's takes six times as long on a CPU
                images = each_sample(_blur, images, sigma, threads=canvas.threads)
        return images


def _blur(image, sigma) -> np.ndarray:
    """As fn.gaussian_blur: taps up to three sigma, the border reflected."""
    import cv2

    taps = 2 * math.ceil(3 * float(sigma)) + 1
    return cv2.GaussianBlur(np.asarray(image), (taps, taps), float(sigma))
