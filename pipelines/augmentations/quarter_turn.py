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
    op: ClassVar[str] = "deformation"
    place: ClassVar[int] = 0

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """Nothing is drawn."""
        return {}

    def columns(self, parameters):
        cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[self.quarters % 4]
        return {"xx": cos, "xy": -sin, "yx": sin, "yy": cos}

    def on_cpu(self, image, parameters, canvas):
        return np.ascontiguousarray(np.rot90(image, self.quarters))
