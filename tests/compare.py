"""The one rule of tolerance: no further from float64 than the reference in the same dtype, plus a floor."""

import torch
from torch import Tensor


def assert_as_close_as(reference: Tensor, candidate: Tensor, exact: Tensor, *, floor: float, name: str = "") -> None:
    """`candidate` may be as far from the float64 result as `reference` is (both in a lower precision), plus `floor`."""
    scale = exact.abs().max().clamp_min(1e-30)
    allowed = (reference.double() - exact).abs().max() / scale + floor
    error = (candidate.double() - exact).abs().max() / scale
    assert torch.isfinite(candidate).all(), name
    assert error <= allowed, f"{name}: error {error:.3g} relative to the largest value, allowed {allowed:.3g}"
