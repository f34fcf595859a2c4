"""What a run's folder holds, read and compared."""

from pathlib import Path

import torch

from clever_fast import checkpoint
from clever_fast.monitoring import metrics


def steps(folder: Path) -> list[int]:
    """The steps that were reported."""
    return [r["step"] for r in metrics.read(folder / metrics.LOG) if r["kind"] == "train"]


def assert_same_state(a: Path, b: Path) -> None:
    """The newest checkpoints of two runs are equal bit for bit: step, weights, buffers, optimizer."""
    first, second = (checkpoint.load(folder / checkpoint.NEWEST) for folder in (a, b))
    assert first["step"] == second["step"]
    for key, value in checkpoint.method_state(first).items():
        assert torch.equal(value, checkpoint.method_state(second)[key]), key
    for i, state in first["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, second["optimizer"]["state"][i][name]), (i, name)
