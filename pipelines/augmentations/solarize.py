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
    op: ClassVar[str] = "photometry"
    place: ClassVar[int] = 3

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """solarize: (N,) bool."""
        return {"solarize": uniforms[:, 0] < self.probability}

    def columns(self, parameters):
        return {"solarize": parameters["solarize"]}

    def on_cpu(self, image, parameters, canvas):
        # for a threshold of half the range, x or 255 - x is whichever is smaller
        return np.minimum(image, ~image) if parameters["solarize"] else image
