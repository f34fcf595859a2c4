"""The one rule by which an op runs its fused form or its reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor

Kernels = Literal["fused", "reference"]
_kernels: Kernels = "fused"


def fused(tensor: Tensor) -> bool:
    """Whether an op on `tensor` runs its fused form: on a GPU always, unless references were asked for."""
    return tensor.is_cuda and _kernels == "fused"


@contextmanager
def use(kernels: Kernels) -> Iterator[None]:
    """Within it, ops on a GPU run these forms."""
    global _kernels
    before, _kernels = _kernels, kernels
    try:
        yield
    finally:
        _kernels = before
