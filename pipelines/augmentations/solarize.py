"""Random solarisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Solarize:
    """Inverts the values from 128 on, with the given probability."""

    probability: float
    draws: ClassVar[int] = 1

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """solarize: (N,) bool."""
        return {"solarize": uniforms[:, 0] < self.probability}

    def apply(self, images, parameters, canvas):
        from clever_fast.pipelines.dali import math, types

        if parameters["solarize"]:
            # for a threshold of half the range, x or 255 - x is whichever is smaller
            images = math.min(images, images ^ types.Constant(255, dtype=types.UINT8))
        return images

    def on_cpu(self, image, parameters, canvas):
        return np.minimum(image, ~image) if parameters["solarize"] else image
