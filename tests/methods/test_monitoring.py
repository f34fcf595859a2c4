"""The monitors: their values on assignments and features that are known, and what of a run they reach."""

import math

import pytest
import torch

from clever_fast.methods import Progress
from clever_fast.methods.monitoring import FEATURES, ROWS, assignments, spread
from clever_fast.monitoring.collapse import Collapse
from tests.recipes import small

TEMPS = {"student_temp": 0.1, "teacher_temp": 0.04}


def test_assignments_are_those_of_the_definition():
    torch.manual_seed(0)
    s, t, c = torch.randn(3, 5, 7, dtype=torch.float64), torch.randn(2, 5, 7, dtype=torch.float64), torch.randn(7)
    p, q = ((t[0] - c) / 0.04).softmax(-1), (s[1] / 0.1).softmax(-1)
    values = assignments(s, t, c, **TEMPS, head="2")
    mean = p.mean(0)
    assert values["teacher_entropy2"].item() == pytest.approx(-(p * p.log()).nansum(-1).mean().item(), rel=1e-4)
    assert values["teacher_kl2"].item() == pytest.approx((p * (p.log() - q.log())).nansum(-1).mean().item(), rel=1e-4)
    assert values["prototype_entropy2"].item() == pytest.approx(-(mean * mean.log()).nansum().item(), rel=1e-4)


def test_the_two_collapses_and_their_opposite_have_the_entropies_of_their_names():
    K, N = 16, 16
    one, eye = torch.zeros(2, N, K), torch.eye(K).repeat(2, 1, 1)
    one[..., 3] = 1.0
    names = ("teacher_entropy", "prototype_entropy")
    found = [[assignments(t, t, torch.zeros(K), **TEMPS)[n].item() for n in names] for t in (0 * eye, one, eye)]
    expected = [[math.log(K), math.log(K)], [0, 0], [0, math.log(K)]]  # uniform, constant, one prototype an image
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_a_few_rows_are_looked_at_and_large_differences_stay_finite():
    t = torch.full((2, ROWS + 1, 4), torch.nan)
    t[:, :ROWS] = torch.tensor([60.0, -60.0, 0.0, 1.0])
    assert all(value.isfinite() for value in assignments(t, t, torch.zeros(4), **TEMPS).values())


@pytest.mark.parametrize(("N", "D"), [(9, 40), (200, 5), (7, 7)])
def test_spread_is_that_of_the_covariance(N, D):
    torch.manual_seed(1)
    x = torch.randn(N, D) * torch.arange(1, D + 1) + 5
    C = torch.cov(x.double().T, correction=0)
    values = spread(x, "ir")
    assert values["ir_std"].item() == pytest.approx((C.trace() / D).sqrt().item(), rel=1e-4)
    eigenvalues = torch.linalg.eigvalsh(C)
    ratio = eigenvalues.sum() ** 2 / eigenvalues.square().sum()
    assert values["ir_rank"].item() == pytest.approx(ratio.item(), rel=1e-4)


def test_the_rank_counts_directions():
    torch.manual_seed(2)
    wide, line = torch.linalg.qr(torch.randn(64, 8))[0], torch.arange(64.0)[:, None] * torch.randn(1, 8)
    wide = torch.linalg.qr(wide - wide.mean(0))[0]  # equal variance in all 8 directions
    assert spread(wide, "x")["x_rank"].item() == pytest.approx(8, rel=1e-4)
    assert spread(line, "x")["x_rank"].item() == pytest.approx(1, rel=1e-4)
    assert [value.item() for value in spread(torch.ones(5, 3), "x").values()] == [0, 0]
    assert spread(torch.cat([wide, wide, wide, wide, torch.full((9, 8), torch.nan)])[: FEATURES + 9], "x")["x_std"] > 0


def told(*entropies: tuple[float, float], step: int = 100, **changes) -> list[str]:
    watched = Collapse(small("dino", **changes), steps_per_epoch=10)
    reports = [{"teacher_entropy": a, "prototype_entropy": b} for a, b in entropies]
    return [text for values in reports if (text := watched.warning(Progress(step, 1000, 10), values))]


def test_a_collapse_is_told_once_and_names_which():
    most = math.log(64)
    (uniform,) = told(*[(0.999 * most, most)] * 9)
    (constant,) = told(*[(0.0, 0.001)] * 9)
    assert "all prototypes alike" in uniform
    assert "the same prototype" in constant


def test_healthy_sharp_and_passing_states_are_not_warned_about():
    most = math.log(64)
    assert not told(*[(0.6 * most, 0.9 * most)] * 9)
    assert not told(*[(0.0, most)] * 9)  # one prototype an image, another for each
    assert not told(*[(most, most), (most, most), (1.0, 3.0)] * 4)
    assert not told(*[(most, most)] * 9, step=20, warmup_epochs=2)  # nothing is learned yet
