"""The same small change to each tensor of a long list, such as a model's parameters, in place."""

from collections.abc import Sequence

from torch import Tensor

from clever_fast.ops import selection
from clever_fast.ops.tensor_lists import reference, released
from clever_fast.tracing import ranged


@ranged("clip_each_")
def clip_each_(tensors: Sequence[Tensor], norms: Tensor, largest: float) -> None:
    """Scales every tensor of norm above `largest` down to it: t <- t min(1, largest / (norm + 1e-6)).

    Args:
        tensors: float32, of any shapes.
        norms: (number of tensors,) float32, their norms; on their device. The host never looks at them.
        largest: the norm that is left alone.

    Raises:
        ValueError: on a GPU, a tensor that is not float32 or has gaps in its memory.

    Source: `clip_gradients` of DINO's released code, which asks the device for each norm.
    """
    _form(tensors).clip_each_(tensors, norms, largest)


@ranged("lerp_each_")
def lerp_each_(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: Tensor) -> None:
    """Moves every tensor towards its end: t <- t + weight (end - t); exactly unchanged where the weight is 0.

    Args:
        tensors: float32, of any shapes.
        ends: as many, of the same shapes and memory formats.
        weight: float32 scalar on their device, 0 to 1.

    Raises:
        ValueError: on a GPU, a tensor that is not float32, has gaps in its memory, or is laid out unlike its end.
    """
    _form(tensors).lerp_each_(tensors, ends, weight)


def _form(tensors: Sequence[Tensor]):
    form = selection.form(tensors[0]) if tensors else "reference"
    if form == "fused":
        from clever_fast.ops.tensor_lists import fused

        return fused
    return released if form == "released" else reference
