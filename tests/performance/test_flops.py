"""What a step costs, against counts by hand."""

import json
from dataclasses import replace

import pytest

from clever_fast.benchmarks import scan_counts
from clever_fast.methods import Dino
from clever_fast.performance.flops import PEAK_TFLOPS, SCAN_MS, SHARES, gflop_per_image, predicted_rates, share_of
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


def test_scans_take_what_was_counted_last():
    records = [json.loads(line) for line in scan_counts.RESULTS.read_text().splitlines()]
    for gpu, expected in SCAN_MS.items():
        last = [r for r in records if r["gpu_counted"] == gpu][-1]
        assert expected == {name: round(ms, 3) for name, ms in last["ms_per_image"].items()}


def test_a_prediction_adds_the_scans_to_a_share_of_the_peak():
    recipe = RECIPES["clever_vmambat_in100"]
    low, high = predicted_rates(recipe, "A100")
    share = SHARES["vmamba"]
    for rate, part in ((low, share.low), (high, share.high)):
        seconds = (
            gflop_per_image(recipe) * 1e9 / (part * PEAK_TFLOPS["A100"] * 1e12) + SCAN_MS["A100"]["vmamba_tiny"] / 1e3
        )
        assert rate == pytest.approx(1 / seconds)
    assert all(share_of(recipe.backbone.name).source for recipe in RECIPES.values())
