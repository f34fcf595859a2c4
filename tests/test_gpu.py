"""The loop on a GPU: the same crops and nearly the same losses as on a CPU, and no waiting for the device in a step."""

import pytest
import torch

from clever_fast import checkpoint, metrics
from clever_fast.acceleration import accelerator
from clever_fast.methods import Batch, Progress
from clever_fast.optimization import FailureGuard
from clever_fast.recipe import Execution, Run
from clever_fast.train import build, train, train_step

pytestmark = pytest.mark.gpu
CPU = Execution(device="cpu", precision="fp32")


def losses(folder):
    return torch.tensor([r["loss"] for r in metrics.read(folder / metrics.LOG) if r["kind"] == "train"])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.01), ("bf16", 0.03), ("fp16", 0.03)])
@pytest.mark.parametrize("method", ["dino", "clever"])
def test_losses_are_near_those_of_a_cpu(small, images, tmp_path, method, precision, tolerance):
    recipe = small(method, drop_path=0.0, base_lr=1e-3)  # drop path's masks come from the device's own generator
    train(recipe, CPU, Run(data=images, run=tmp_path / "cpu", log_every=1))
    gpu = Execution(device="cuda", precision=precision)
    train(recipe, gpu, Run(data=images, run=tmp_path / "gpu", log_every=1))
    torch.testing.assert_close(losses(tmp_path / "gpu"), losses(tmp_path / "cpu"), rtol=tolerance, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["dino", "clever"])
def test_a_step_never_waits_for_the_device(small, method, precision):
    recipe, machine = small(method), accelerator(Execution(device="cuda", precision=precision))
    trained = build(recipe, machine)
    guard = FailureGuard(trained.method, machine.device, overflow_is_normal=trained.scaler.is_enabled())
    crops = [torch.randn(16, 3, size, size, device="cuda") for size in (32, 16)]
    batch = Batch(*(x.contiguous(memory_format=torch.channels_last) for x in crops), torch.zeros(8))
    for step in range(3):  # optimizer state and cuDNN's choices are made in the first steps
        train_step(trained.method, trained, guard, batch, Progress(step, 20, 2), recipe, machine)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3, 6):
            train_step(trained.method, trained, guard, batch, Progress(step, 20, 2), recipe, machine)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_resumed_run_goes_on_with_the_same_crops(small, images, tmp_path):
    gpu = Execution(device="cuda", precision="bf16")
    train(small(), gpu, Run(data=images, run=tmp_path / "whole", log_every=1))
    for stop in (4, None):
        train(small(), gpu, Run(data=images, run=tmp_path / "parts", log_every=1, stop_after=stop))
    torch.testing.assert_close(losses(tmp_path / "parts"), losses(tmp_path / "whole"), rtol=0.02, atol=0)
    assert checkpoint.load(tmp_path / "parts" / checkpoint.NEWEST)["step"] == 9


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights(small, tmp_path):
    recipe, machine = small(), accelerator(Execution(device="cuda", precision="bf16"))
    trained = build(recipe, machine)
    guard = FailureGuard(trained.method, machine.device, overflow_is_normal=False)
    crops = [torch.randn(16, 3, size, size, device="cuda") for size in (32, 16)]
    batch = Batch(*(x.contiguous(memory_format=torch.channels_last) for x in crops), torch.zeros(8))
    for step in range(3):
        train_step(trained.method, trained, guard, batch, Progress(step, 20, 2), recipe, machine)
    good = {name: value.clone() for name, value in trained.method.state_dict().items()}
    batch.global_crops[0, 0, 0, 0] = torch.nan
    for step in range(3, 6):
        train_step(trained.method, trained, guard, batch, Progress(step, 20, 2), recipe, machine)
    assert guard.failed_step.item() == 3
    for name, value in trained.method.state_dict().items():
        assert not value.is_floating_point() or torch.equal(value, good[name]), name
