"""The loop on a GPU: the same crops and nearly the same losses as on a CPU, and no waiting for the device in a step."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from clever_fast import checkpoint
from clever_fast.accelerator import Accelerator
from clever_fast.methods import Batch, Progress
from clever_fast.models import BACKBONES
from clever_fast.monitoring import metrics
from clever_fast.options import Execution, Run
from clever_fast.train import train
from clever_fast.train_state import TrainState
from tests import recipes

pytestmark = pytest.mark.gpu
CPU = Execution(device="cpu", precision="fp32")
NETWORKS = {"resnet": BACKBONES["resnet10_small"], "vit": recipes.VIT, "vmamba": BACKBONES["vmamba_mini"]}
EXECUTIONS = {
    "fp32": Execution(precision="fp32"),
    "bf16": Execution(precision="bf16"),
    "fp16": Execution(precision="fp16"),
    "eager": Execution(precision="bf16", compile="off"),
    "graphs": Execution(precision="bf16", compile="graphs"),
    "checkpointing": Execution(precision="bf16", compile="off", checkpointing=True),
    "small memory": Execution(precision="bf16", checkpointing=True),
    "NCHW": Execution(precision="bf16", channels_last=False),
}
CASES = [("resnet", name) for name in EXECUTIONS if name != "small memory"]  # which BatchNorm does not bear
CASES += [("vit", "bf16"), ("vit", "small memory"), *(("vmamba", name) for name in ("bf16", "fp16", "small memory"))]


@pytest.fixture(autouse=True)
def compiled_anew():
    yield
    torch._dynamo.reset()


def losses(folder):
    return torch.tensor([r["loss"] for r in metrics.read(folder / metrics.LOG) if r["kind"] == "train"])


def noise(step, accelerator):
    g, layout = torch.Generator().manual_seed(step), torch.channels_last
    crops = [torch.randn(16, 3, size, size, generator=g).to(memory_format=layout) for size in (32, 16)]
    return Batch(*(x.to(accelerator.device) for x in crops), torch.zeros(8))


def prepared(recipe, execution):
    return TrainState(recipe, Accelerator.from_execution(execution))


def step(state, number, batch):
    return state.step(batch, Progress(number, 20, 2))


@cache
def first_steps(network, execution, count=4):
    """Losses and gradient norms (count, 2) of the first steps on noise."""
    recipe = recipes.small("clever", backbone=NETWORKS[network], drop_path=0.0, base_lr=1e-3)
    given = prepared(recipe, execution)
    values = [step(given, i, noise(i, given.accelerator)) for i in range(count)]
    return torch.tensor([[v["loss"].item(), v["gradient_norm"].item()] for v in values])


@pytest.mark.parametrize(("network", "execution"), CASES)
def test_steps_are_near_those_of_a_cpu(network, execution):
    found, expected = first_steps(network, replace(EXECUTIONS[execution], device="cuda")), first_steps(network, CPU)
    exact = execution == "fp32"
    torch.testing.assert_close(found[:, 0], expected[:, 0], rtol=0.005 if exact else 0.02, atol=0)
    if execution != "fp16":  # whose scale may be too large at first
        torch.testing.assert_close(found[:, 1], expected[:, 1], rtol=0.02 if exact else 0.06, atol=0)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.01), ("bf16", 0.03), ("fp16", 0.03)])
@pytest.mark.parametrize("method", ["dino", "clever"])
def test_losses_are_near_those_of_a_cpu(small, images, tmp_path, method, precision, tolerance):
    pytest.importorskip("nvidia.dali")
    recipe = small(method, drop_path=0.0, base_lr=1e-3)  # drop path's masks come from the device's own generator
    train(recipe, CPU, Run(data=images, folder=tmp_path / "cpu", log_every=1))
    gpu = Execution(device="cuda", precision=precision)
    train(recipe, gpu, Run(data=images, folder=tmp_path / "gpu", log_every=1))
    torch.testing.assert_close(losses(tmp_path / "gpu"), losses(tmp_path / "cpu"), rtol=tolerance, atol=0)


@pytest.mark.parametrize(("network", "execution"), CASES)
def test_a_step_never_waits_for_the_device(network, execution):
    given = prepared(recipes.small(backbone=NETWORKS[network]), replace(EXECUTIONS[execution], device="cuda"))
    batch = noise(0, given.accelerator)
    for i in range(4):  # optimizer state, cuDNN's choices and graphs are made in the first steps
        step(given, i, batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(4, 7):
            step(given, i, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_an_overflow_skips_one_step_and_halves_the_scale():
    trained = prepared(recipes.small(), Execution(device="cuda", precision="fp16"))
    trained.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**60)
    before = {name: value.clone() for name, value in trained.method.state_dict().items()}
    step(trained, 0, noise(0, trained.accelerator))
    assert trained.scaler.get_scale() == 2.0**59
    assert trained.guard.failed_step.item() == -1
    for name, value in trained.method.state_dict().items():
        assert not value.is_floating_point() or torch.equal(value, before[name]), name


def test_a_resumed_run_goes_on_with_the_same_crops(small, images, tmp_path):
    pytest.importorskip("nvidia.dali")
    gpu = Execution(device="cuda", precision="bf16")
    train(small(), gpu, Run(data=images, folder=tmp_path / "whole", log_every=1))
    for stop in (4, None):
        train(small(), gpu, Run(data=images, folder=tmp_path / "parts", log_every=1, stop_after=stop))
    torch.testing.assert_close(losses(tmp_path / "parts"), losses(tmp_path / "whole"), rtol=0.02, atol=0)
    assert checkpoint.load(tmp_path / "parts" / checkpoint.NEWEST)["step"] == 9


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights():
    given = prepared(recipes.small(), Execution(device="cuda", precision="bf16"))
    method, batch = given.method, noise(0, given.accelerator)
    for i in range(3):
        step(given, i, batch)
    good = {name: value.clone() for name, value in method.state_dict().items()}
    batch.global_crops[0, 0, 0, 0] = torch.nan
    for i in range(3, 6):
        step(given, i, batch)
    assert given.guard.failed_step.item() == 3
    for name, value in method.state_dict().items():
        assert not value.is_floating_point() or torch.equal(value, good[name]), name
