"""What a backbone is to the rest of the project."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Backbone:
    """A named constructor: `build(drop_path)` is a module (N, 3, S, S) -> (N, D) with an attribute `embed_dim` = D.

    The module takes images of any size the recipes use, in any memory format.
    """

    name: str
    build: Callable[[float], nn.Module]
    timm: str | None = None  # `timm.create_model(timm, num_classes=0)` takes the same weights
    drop_path: float = 0.0  # the student's stochastic depth rate in the released recipes; the teacher's is always 0

    def __str__(self) -> str:
        return self.name
