"""Whole training steps with the fused ops against the same with the references: Execution changes only rounding."""

import pytest
import torch

from clever_fast import ops
from clever_fast.accelerator import Accelerator
from clever_fast.methods import Batch, Progress
from clever_fast.options import Execution
from clever_fast.train_state import TrainState
from tests.ops.fused_device import DEVICE, MARK

pytestmark = MARK


def train(recipe, kernels: str, steps: int = 6):
    """The weights before and after some steps, the last with a NaN among its pixels."""
    accelerator = Accelerator.from_execution(Execution(device=DEVICE, precision="fp32", kernels=kernels))
    # TF32 turns the last bit of a difference into its own last bit; cuDNN's fastest sums have no order
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    trained = TrainState(recipe, accelerator)
    before = {name: value.clone() for name, value in trained.method.state_dict().items()}
    for step in range(steps):
        torch.manual_seed(step)
        crops = [torch.randn(8, 3, size, size, device=DEVICE) for size in (32, 16)]
        if step == steps - 1:
            crops[0][0, 0, 0, 0] = torch.nan
        batch = Batch(*(x.contiguous(memory_format=torch.channels_last) for x in crops), torch.zeros(4))
        # Clipping at 0.05, so that some gradients are clipped and some are not; from step 2 on the last layers train.
        trained.step(batch, Progress(step, 20, 2))
    assert trained.guard.failed_step == steps - 1
    return before, trained.method.state_dict()


@pytest.mark.parametrize("method", ["dino", "clever"])
def test_steps_end_in_the_same_weights(small, method, monkeypatch):
    recipe = small(method, drop_path=0.0, optimizer="sgd", clip_grad=0.05, base_lr=4.0, warmup_epochs=0)
    before, expected = train(recipe, "reference")
    if DEVICE == "cpu":
        monkeypatch.setattr(ops.selection, "form", lambda tensor, **_: "fused")
    _, got = train(recipe, "fused")
    for name, value in expected.items():
        if value.is_floating_point():
            moved = (value - before[name]).abs().max()
            assert (got[name] - value).abs().max() <= 2e-3 * moved + 1e-7, name
    weights = [name for name in expected if name.endswith("weight_v")]
    assert weights
    assert all((expected[name] - before[name]).abs().max() > 1e-5 for name in weights)
