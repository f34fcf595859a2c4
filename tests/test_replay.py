"""A run that was not finite leaves what a replay needs, and the replay names what failed first."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from clever_fast import checkpoint, replay
from clever_fast.accelerator import Accelerator
from clever_fast.cli import main
from clever_fast.methods import Progress
from clever_fast.nonfinite.stop import NotFiniteError
from clever_fast.options import Execution, Run
from clever_fast.performance.timing import noise
from clever_fast.train import train
from clever_fast.train_state import TrainState

CPU = Execution(device="cpu", precision="fp32", threads=1)


def test_a_failed_run_is_replayed_to_what_failed_first(small, images, tmp_path, capsys, fault):
    recipe = small("dino", base_lr=1e30, min_lr=1.0, warmup_epochs=0, clip_grad=0.0)
    with pytest.raises(NotFiniteError, match="clever-fast replay"):
        train(recipe, CPU, Run(data=images, folder=tmp_path, log_every=4))
    capsys.readouterr()
    assert main(["replay", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    bundle, weights = replay.read_bundle(tmp_path, None)
    assert f"step {bundle['step']} of" in told
    assert "not finite" in told
    assert checkpoint.load(weights)["step"] == bundle["step"]
    finding = told.strip().splitlines()[-1]
    fault(
        f"a loss that is not finite at step {bundle['step']}, noticed at the report of step 4",
        "the run says so, ends and leaves that step's batch, settings and the weights before it; `clever-fast "
        f"replay` did the step again: “{finding}”",
        f"{4 - bundle['step']} steps, none of which changed a weight",
    )
    # The step before it was finite: the same bundle with healthy weights finds nothing.
    healthy = TrainState(small("dino"), Accelerator.from_execution(CPU))
    state = checkpoint.load(weights)
    torch.save(
        state
        | checkpoint.content(healthy.state_dict(), recipe=recipe, data=state["data"], step=state["step"], epoch=0),
        weights,
    )
    bundle["processes"] = 2  # each rank's share is replayed
    weights.with_suffix(".json").write_text(json.dumps(bundle))
    assert main(["replay", str(tmp_path)]) == 0
    assert "it did not happen again" in capsys.readouterr().out


class Root(torch.autograd.Function):
    """A function whose value is finite and whose gradient is not."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * torch.nan


class Broken(nn.Module):
    def __init__(self, inner: nn.Module, kind: str):
        super().__init__()
        self.inner, self.kind = inner, kind

    def forward(self, x):
        y = self.inner(x)
        return y / 0 if self.kind == "forward" else Root.apply(y)


@pytest.fixture
def step(small):
    recipe = replace(small("clever"), batch_size=4)
    accelerator = Accelerator.from_execution(CPU)
    torch.manual_seed(0)
    return TrainState(recipe, accelerator), noise(recipe, accelerator), Progress(5, 10, 5)


def test_a_healthy_step_has_no_finding(step):
    assert replay.observe(*step) is None


def test_each_part_of_a_step_is_named_where_it_fails_first(step):
    trained, batch, progress = step
    student = trained.method.student
    mlp = student.head.mlp
    mlp[2] = Broken(mlp[2], "forward")
    found = replay.observe(*step)
    assert "student.head.mlp.2 (Broken)" in found
    assert "its input is finite" in found
    mlp[2] = Broken(mlp[2].inner, "backward")
    assert "RootBackward" in replay.observe(*step)
    mlp[2] = mlp[2].inner
    crops = batch.local_crops.clone()
    crops[3, 0, 0, 0] = torch.inf
    assert "local_crops hold values that are not finite, in rows [3]" in replay.observe(
        trained, batch._replace(local_crops=crops), progress
    )
    with torch.no_grad():
        mlp[0].weight[0, 0] = torch.nan
    assert "before the step: student.head.mlp.0.weight, 1 NaN" in replay.observe(*step)


def test_a_run_that_did_not_fail_is_told_so(tmp_path, capsys):
    assert main(["replay", str(tmp_path)]) == 2
    assert "no step has failed" in capsys.readouterr().err
    (tmp_path / "not_finite_step_3.json").write_text('{"step": 3}')
    assert main(["replay", str(tmp_path)]) == 2
    assert "do not say all that a replay needs" in capsys.readouterr().err
