"""Updates: DINO's groups and clip, and steps that skip themselves when something is not finite."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from clever_fast.accelerator import Accelerator
from clever_fast.methods import Batch, Progress
from clever_fast.ops import clip_each_
from clever_fast.optimization import gradient_norms, make_optimizer, schedule
from clever_fast.options import EXECUTIONS, Execution
from clever_fast.train_state import TrainState
from tests.recipes import siamese

CPU = Execution(device="cpu", precision="fp32")


def batch(seed: int, images: int = 4) -> Batch:
    torch.manual_seed(seed)
    return Batch(torch.randn(2 * images, 3, 32, 32), torch.randn(2 * images, 3, 16, 16), torch.zeros(images))


def test_biases_and_vectors_are_not_decayed(small):
    method = small().method.build(small().backbone, 0.0)
    decayed, free, last = make_optimizer(method, small()).param_groups
    assert all(p.ndim > 1 for group in (decayed, last) for p in group["params"])
    assert all(p.ndim == 1 for p in free["params"])
    assert len(last["params"]) == 2  # of both heads
    trained = sum(p.requires_grad for p in method.parameters())
    assert sum(len(group["params"]) for group in (decayed, free, last)) == trained
    assert free["weight_decay"] == 0
    named = dict(method.named_parameters())
    assert not named["student.head.last_layer.weight_g"].requires_grad
    assert not any(p.requires_grad for name, p in named.items() if name.startswith("teacher"))


def test_schedule_sets_rate_and_decay_of_the_step(small):
    recipe = small(batch_size=512, warmup_epochs=1)
    optimizer = make_optimizer(recipe.method.build(recipe.backbone, 0.0), recipe)
    schedule(optimizer, recipe, Progress(0, 30, 10))
    assert optimizer.param_groups[0]["lr"] == 0
    schedule(optimizer, recipe, Progress(10, 30, 10))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(recipe.base_lr * 2)
    schedule(optimizer, recipe, Progress(15, 30, 10))
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx((0.04 + 0.4) / 2)
    assert optimizer.param_groups[1]["weight_decay"] == 0


@pytest.mark.parametrize("name", ["simsiam", "ddcl"])
def test_simsiams_groups_are_decayed_all_and_the_predictors_rate_stays(name):
    recipe = siamese(name)
    method = recipe.method.build(recipe.backbone, 0.0)
    others, predictors = make_optimizer(method, recipe).param_groups
    assert set(predictors["params"]) == set(method.constant_lr())
    assert {p.ndim for p in others["params"]} == {1, 2, 4}
    trained = [p for p in method.parameters() if p.requires_grad]
    assert len(others["params"]) + len(predictors["params"]) == len(trained)
    assert len(list(method.parameters())) - len(trained) == (name == "simsiam")  # the projector's cancelled bias


def test_simsiams_schedule_is_that_of_its_released_code():
    """Rates as the released `adjust_learning_rate_wp` and `adjust_learning_rate` set them, epoch by epoch."""
    recipe = siamese("ddcl", epochs=6, warmup_epochs=2, base_lr=0.05, batch_size=512)
    optimizer = make_optimizer(recipe.method.build(recipe.backbone, 0.0), recipe)
    peak, spe = 0.1, 50
    for epoch in range(6):
        if epoch < 2:
            expected = fixed = peak * epoch / 2
        else:
            expected, fixed = peak * 0.5 * (1 + math.cos(math.pi * (epoch - 2) / 4)), peak
        for step in (epoch * spe, epoch * spe + spe - 1):
            schedule(optimizer, recipe, Progress(step, 6 * spe, spe))
            others, predictors = optimizer.param_groups
            assert others["lr"] == pytest.approx(expected, rel=0.011)  # our warm-up ends at the peak: 1/99 more
            assert predictors["lr"] == pytest.approx(fixed, rel=0.011)
            assert others["weight_decay"] == predictors["weight_decay"] == 1e-4


def test_each_gradient_is_clipped_by_its_own_norm():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    before = []
    for i, p in enumerate(model.parameters()):
        p.grad = torch.randn_like(p) * 10 ** (i - 1)
        before.append(p.grad.clone())
    gradients, norms = gradient_norms(model)
    clip_each_(gradients, norms, 3.0)
    clipped = 0
    for p, old in zip(model.parameters(), before, strict=True):  # the released code, tensor by tensor
        coefficient = 3.0 / (old.norm(2) + 1e-6)
        torch.testing.assert_close(p.grad, old * coefficient if coefficient < 1 else old)
        clipped += bool(coefficient < 1)
    assert 0 < clipped < len(before)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    ("method", "execution"), [("dino", CPU), ("clever", CPU), ("clever", replace(EXECUTIONS["plain"], device="cpu"))]
)
def test_from_the_first_failed_step_on_nothing_changes(small, method, optimizer, execution):
    recipe, accelerator = (
        small(method, optimizer=optimizer),
        Accelerator.from_execution(replace(execution, precision="fp32")),
    )
    trained = TrainState(recipe, accelerator)

    def step(number, data):
        return trained.step(data, Progress(number, 20, 2))

    for number in range(4):
        step(number, batch(number))
    assert trained.guard.failed_step == -1
    good = copy.deepcopy((trained.method.state_dict(), trained.optimizer.state_dict()["state"]))
    poisoned = batch(4)
    poisoned.global_crops[0, 0, 0, 0] = torch.nan
    assert not torch.isfinite(step(4, poisoned)["loss"])
    assert trained.guard.failed_step == 4
    assert torch.isfinite(step(5, batch(5))["loss"])  # a good batch again: the failure is remembered
    assert trained.guard.failed_step == 4
    weights, moments = trained.method.state_dict(), trained.optimizer.state_dict()["state"]
    for name, value in good[0].items():
        if value.is_floating_point():
            assert torch.equal(value, weights[name]), name
    for i, state in good[1].items():
        for name, value in state.items():
            assert value is None or torch.equal(value, moments[i][name]), (i, name)


def test_a_step_without_a_failure_moves_weights_teacher_statistics_and_centres(small):
    recipe, accelerator = small(), Accelerator.from_execution(CPU)
    trained = TrainState(recipe, accelerator)
    before = copy.deepcopy(trained.method.state_dict())
    for number in range(2, 4):
        trained.step(batch(number), Progress(number, 20, 2))
    after = trained.method.state_dict()
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert all(name.endswith("weight_g") for name in still), still


def test_fp16_overflow_lowers_the_scale_and_is_no_failure(small):
    recipe, accelerator = small(), Accelerator.from_execution(Execution(device="cpu", precision="fp16"))
    trained = TrainState(recipe, accelerator)
    trained.scaler._init_scale = 2.0**60  # scaled gradients overflow
    before = copy.deepcopy(trained.method.student.state_dict())
    trained.step(batch(0), Progress(3, 20, 2))
    assert trained.guard.failed_step == -1
    assert trained.scaler.get_scale() == 2.0**59
    after = trained.method.student.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if before[k].is_floating_point())
