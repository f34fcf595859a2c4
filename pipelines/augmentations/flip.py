"""Random horizontal flip, for views whose crop does not bring it along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Flip:
    """Mirrors left and right, with the given probability."""

    probability: float = 0.5
    draws: ClassVar[int] = 1
    op: ClassVar[str] = "deformation"
    place: ClassVar[int] = 0

    def sample(self, uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """flip: (N,) bool."""
        return {"flip": uniforms[:, 0] < self.probability}

    def columns(self, parameters):
        return {"xx": np.where(parameters["flip"], -1, 1)}

    def on_cpu(self, image, parameters, canvas):
        return np.ascontiguousarray(image[:, ::-1]) if parameters["flip"] else image
