"""The bytes that the fused losses move, counted, against the floor and against plain torch."""

from functools import partial

import pytest
import torch

from clever_fast.benchmarks import traffic
from tests.ops.fused_device import DEVICE

pytestmark = pytest.mark.skipif(DEVICE == "cuda", reason="counts what the interpreter executes")
K = 8192


@pytest.mark.parametrize("form", ["cross_entropy", "cosine", "dot"])
def test_bytes_and_launches_of_a_step(form):
    moved = traffic.total(traffic.at(lambda N: traffic.fused(form, N, K), 128))
    assert traffic.floor(128, K) < moved.bytes < 1.2 * traffic.floor(128, K)
    assert moved.launches <= 10
    plain = traffic.total(traffic.reference(form, 128, K))
    assert plain.bytes > 10 * moved.bytes
    assert plain.launches > 3 * moved.launches


def test_counts_are_linear_in_the_images():
    count = partial(traffic.fused, "cross_entropy", K=1000)
    three, line = count(3), traffic.at(lambda N: count(N=N), 3)
    assert {name: t.bytes for name, t in three.items()} == {name: t.bytes for name, t in line.items()}


def test_torch_kernels_are_counted_by_their_operands():
    moved = traffic.Traffic()
    x = torch.zeros(10, 20)
    with traffic.TorchTraffic(moved):
        x.t() + torch.ones(1).expand(20, 10)
    assert (moved.bytes, moved.launches) == (4 + 800 + 4 + 800, 2)  # ones, and the sum of two tensors
