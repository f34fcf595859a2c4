"""What a step costs, against counts by hand."""

from dataclasses import replace

import pytest

from clever_fast.methods import Dino
from clever_fast.performance.flops import gflop_per_image
from clever_fast.recipes import RECIPES


def test_simsiams_step_is_counted_as_by_hand():
    """Two crops, three passes, two for a multiply-add; a ResNet-18 takes 1.8136 G of those at 224 px."""
    heads = 2 * 512**2 + 512 * 2048 + 2 * 2048 * 512
    by_hand = 2 * 3 * 2 * (1.8136e9 + heads) / 1e9
    assert gflop_per_image(RECIPES["simsiam_resnet18_in100"]) == pytest.approx(by_hand, rel=2e-3)


def test_a_teacher_has_no_backward_pass():
    """DINO against its student alone: 2 crops of 224 px and 8 of 96 px, 1 + 3 and 3 forward passes' worth."""
    small = replace(RECIPES["dino_resnet18_in100"], method=Dino(prototypes=1, hidden=1, bottleneck=1))
    crops = 224**2, 8 / 2 * 96**2  # the cost of a convolution grows with the area, but for the borders
    by_hand = 2 * 2 * 1.8136 * (4 * crops[0] + 3 * crops[1]) / crops[0]
    assert gflop_per_image(small) == pytest.approx(by_hand, rel=0.03)


def test_a_second_pair_of_heads_costs_more():
    assert gflop_per_image(RECIPES["ddcl_resnet18_in100"]) > gflop_per_image(RECIPES["simsiam_resnet18_in100"])
