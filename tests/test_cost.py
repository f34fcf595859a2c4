"""What a step costs, against counts by hand."""

import pytest

from clever_fast.cost import gflop_per_image
from clever_fast.recipes import RECIPES


def test_simsiams_step_is_counted_as_by_hand():
    """ResNet-18 at 224 px: 1.814 G multiply-adds, 0.118 G of them in the first layer, whose input has no gradient."""
    heads = 512 * 2048 + 2 * 2048**2 + 2 * 2048 * 512
    by_hand = 2 * 2 * (3 * 1.8136e9 - 0.118e9 + 3 * heads) / 1e9
    assert gflop_per_image(RECIPES["simsiam_resnet18_in100"]) == pytest.approx(by_hand, rel=2e-3)


def test_a_second_pair_of_heads_costs_more():
    assert gflop_per_image(RECIPES["ddcl_resnet18_in100"]) > gflop_per_image(RECIPES["simsiam_resnet18_in100"])
