"""The one rule by which an op runs its fused form, its reference, or the released code's way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor

Kernels = Literal["fused", "reference", "released"]
_kernels: Kernels = "fused"


def form(tensor: Tensor, *, on_cpu: bool = False) -> Kernels:
    """Which form an op on `tensor` runs: what was asked for.

    "fused" is for GPUs and means "reference" on a CPU, but for ops whose fused form runs there too (`on_cpu`).
    """
    return _kernels if _kernels != "fused" or tensor.is_cuda or on_cpu else "reference"


def reference_is_asked_for() -> bool:
    """For ops whose kernels also run on a CPU, and for those that the released code has none of."""
    return _kernels == "reference"


@contextmanager
def use(kernels: Kernels) -> Iterator[None]:
    """Within it, ops run these forms."""
    global _kernels
    before, _kernels = _kernels, kernels
    try:
        yield
    finally:
        _kernels = before
