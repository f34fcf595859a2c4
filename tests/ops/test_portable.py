"""The forms for exporters equal the scans they stand for."""

import pytest
import torch

from clever_fast.ops import extension
from clever_fast.ops.cross_scan import fused, portable, reference
from clever_fast.ops.selective_scan import doubling, selective_scan
from tests.compare import assert_as_close_as


@pytest.mark.parametrize("L", [1, 2, 37])
def test_doubling_is_the_recurrence(L):
    torch.manual_seed(0)
    N, K, D, S = 2, 2, 3, 2
    u, delta = torch.randn(2, N, K * D, L)
    B, C = torch.randn(2, N, K, S, L)
    rest = -torch.rand(K * D, S), B, C, torch.randn(K * D), torch.randn(K * D)
    exact = selective_scan(*(t.double() for t in (u, delta, *rest)))
    found = doubling.selective_scan(u, delta, *rest)
    assert_as_close_as(selective_scan(u, delta, *rest), found, exact, floor=1e-6)


@pytest.mark.skipif(bool(extension.missing), reason="the kernels were not built")
def test_the_decomposition_takes_the_operator_s_arguments(monkeypatch):
    torch.manual_seed(0)
    x, D, R, S = torch.randn(2, 3, 5, 8), 8, 2, 2
    weights = torch.randn(4, R + 2 * S, D), torch.randn(4, D, R), -torch.rand(4 * D, S), *torch.randn(2, 4 * D)
    exact = reference.cross_scan(*(t.double() for t in (x, *weights)))
    expected = fused.cross_scan(x, *weights)
    with torch.no_grad():
        program = torch.export.export(Scan(), (x, *weights)).run_decompositions(portable.DECOMPOSITIONS)
    assert not any("clever_fast" in str(node.target) for node in program.graph.nodes)
    assert_as_close_as(expected, program.module()(x, *weights), exact, floor=1e-6)


class Scan(torch.nn.Module):
    def forward(self, *tensors):
        return fused.cross_scan(*tensors)
