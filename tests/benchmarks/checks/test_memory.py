"""The count of a step's memory: exact where it can be written down, linear in the images, ordered as the executions."""

import pytest
import torch
from torch import nn

from clever_fast.benchmarks.checks.memory import GIB, kept_bytes, step_gib
from clever_fast.options import EXECUTIONS
from tests.recipes import VIT


def test_what_autograd_keeps_is_counted_once_and_without_weights():
    model = nn.Sequential(nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3))
    with kept_bytes(model) as kept:
        model(torch.randn(11, 7))
    assert sum(kept.values()) == 4 * 11 * (7 + 5 + 5)  # the input, GELU's input, and its output


def test_a_step_is_state_and_activations(small):
    recipe = small(backbone=VIT)
    plain, fast, frugal = (
        [step_gib(recipe, EXECUTIONS[name], images) for images in (8, 16, 24)]
        for name in ("plain", "fast", "small_memory")
    )
    method = recipe.method.build(VIT, 0.0)
    count = sum(p.numel() * (4 if p.requires_grad else 1) for p in method.parameters())
    for gib in (plain, fast, frugal):
        assert gib[2] - gib[1] == pytest.approx(gib[1] - gib[0], rel=0.02)
        state = gib[0] - (gib[1] - gib[0])
        assert state * GIB == pytest.approx(4 * count, rel=0.1)  # centres and what is kept whatever the batch besides
    assert frugal[2] < fast[2] < plain[2]
