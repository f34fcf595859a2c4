"""A rotation by quarter turns, which moves every pixel onto another and loses none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Turn:
    """Rotates every image by `quarters` times 90 degrees, counter-clockwise."""

    quarters: int
    draws: ClassVar[int] = 0

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """Nothing is drawn."""
        return {}

    def apply(self, images, parameters, canvas):
        from clever_fast.pipelines.dali import fn, types

        angle = 90.0 * self.quarters
        return fn.rotate(images, angle=angle, keep_size=True, fill_value=0, interp_type=types.INTERP_NN)

    def on_cpu(self, image, parameters, canvas):
        return np.ascontiguousarray(np.rot90(image, self.quarters))
