"""The scaling model: times that can be worked out by hand, limits where they must be, and gradients counted."""

import pytest

from clever_fast.benchmarks.checks.scaling import (
    Assumptions,
    all_reduce,
    gradient_bytes,
    of_gpu,
    onset,
    predict,
    ring,
    table,
    tree,
)
from clever_fast.errors import UserError
from clever_fast.recipes import RECIPES

FREE = {"batch": 10, "step": 1.0, "gradient_bytes": 0.0, "decode_rate": 1e9, "storage_bandwidth": 1e18}


def test_a_ring_sends_each_byte_twice_but_for_one_share():
    assert ring(4, 8e9, 1e9, 0.5) == pytest.approx(2 * 0.75 * 8 + 2 * 3 * 0.5)
    assert tree(5, 8e9, 1e9, 0.5) == pytest.approx(16 + 2 * 3 * 0.5)
    assert ring(1, 8e9, 1e9, 0.5) == tree(1, 8e9, 1e9, 0.5) == 0


def test_the_tree_wins_where_latency_rules_and_the_ring_where_bytes_do():
    links = {"gpus_per_node": 1, "network_bandwidth": 1e9, "network_latency": 1e-3}
    small, large = (Assumptions(**FREE | links | {"gradient_bytes": size}) for size in (1e3, 1e9))
    assert all_reduce(1024, small) == tree(1024, 1e3, 1e9, 1e-3)
    assert all_reduce(3, large) == ring(3, 1e9, 1e9, 1e-3)


def test_without_limits_n_gpus_are_n_times_one():
    found = predict(37, Assumptions(**FREE))
    assert (found.rate, found.efficiency, found.limit) == (370.0, 1.0, "compute")


def test_a_step_waits_for_what_it_cannot_hide():
    a = Assumptions(**FREE | {"gradient_bytes": 3e9, "network_bandwidth": 2e9, "network_latency": 0.0, "overlap": 0.5})
    found = predict(16, a)  # the ring takes 2 * 15/16 * 1.5 s, half a second of it hidden
    assert found.exposed == pytest.approx(2.8125 - 0.5)
    assert found.rate == pytest.approx(160 / 3.3125)
    assert found.limit == "all-reduce"
    assert onset("all-reduce", a) == 9  # the first that leaves the node


def test_storage_and_decode_bind_at_the_number_that_division_gives():
    a = Assumptions(**FREE | {"storage_bandwidth": 1e6, "image_bytes": 1e3})  # 1,000 images/s for all
    assert onset("storage", a) == 101
    assert predict(500, a).rate == 1000
    assert predict(500, a).efficiency == pytest.approx(0.2)
    slow = Assumptions(**FREE | {"decode_rate": 4.0})
    assert (onset("decode", slow), predict(3, slow).rate) == (1, 12.0)
    assert onset("storage", slow) is None


def test_gradients_are_those_of_what_is_trained():
    recipe = RECIPES["clever_vits16_in100"]
    method = recipe.method.build(recipe.backbone, 0.0)
    trained = [p for p in method.student.parameters() if p.requires_grad]
    assert gradient_bytes(recipe) == 4 * sum(p.numel() for p in trained)
    assert gradient_bytes(recipe) == pytest.approx(4 * (21.67e6 + 44e6), rel=0.01)  # the backbone and both heads


def test_a_gpu_s_step_is_its_gflop_over_what_it_reaches():
    recipe = RECIPES["clever_vits16_in100"]  # 115 GFLOP an image; 251 images/s were published for an A100
    a = of_gpu(recipe, tflops=312, share=0.09)
    assert a.batch / a.step == pytest.approx(251, rel=0.05)
    assert of_gpu(recipe, 312, 0.09, step=0.25).step == 0.25


def test_the_table_names_every_limit():
    text = table({"one": Assumptions(**FREE | {"storage_bandwidth": 1e6, "image_bytes": 1e3})})
    assert "| 1 | 10 images/s, 100%, compute |" in text
    assert "| 1,024 | 1,000 images/s, 10%, storage |" in text
    assert "all-reduce never, decode never, storage from 101 GPUs" in text


@pytest.mark.parametrize(
    ("name", "value"), [("step", 0), ("overlap", 1.5), ("decode_rate", -1), ("image_bytes", float("nan"))]
)
def test_assumptions_that_cannot_be_are_named(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}"):
        Assumptions(**FREE | {name: value})
