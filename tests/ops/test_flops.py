"""The scans' floating-point operations against a count by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clever_fast import ops
from clever_fast.ops import extension, flops  # noqa: F401  registers the formulas
from tests.ops import scans

pytestmark = pytest.mark.skipif(bool(extension.missing), reason="needs the library built from csrc")


def counted(op, tensors) -> tuple[int, int]:
    """Floating-point operations of the forward and of the backward pass."""
    leaves = [x.requires_grad_() for x in tensors]
    with FlopCounterMode(display=False) as forward:
        y = op(*leaves)
    with FlopCounterMode(display=False) as backward:
        y.backward(torch.ones_like(y))
    return forward.get_total_flops(), backward.get_total_flops()


def test_floating_point_operations_are_counted():
    elements = 2 * (3 * 5) * 7  # N, K D, L
    assert counted(ops.selective_scan, scans.inputs(2, 3, 5, 2, 7)) == (elements * 21, elements * 56)
    N, H, W, D, S, R = 2, 3, 4, 5, 1, 6
    elements, projection = N * H * W * 4 * D, 2 * (N * H * W) * D * 4 * (R + 2 * S)
    forward, backward = counted(ops.cross_scan, scans.image_inputs(N, H, W, D, S, R))
    assert forward == projection + elements * (14 + 12 + 1)
    assert backward == 2 * projection + elements * (34 + 36 + 1)
