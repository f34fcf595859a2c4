"""How a run ends whose loss or gradient is not finite, and what it leaves for `clever-fast replay`."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from clever_fast import checkpoint, distributed
from clever_fast.data import Batches
from clever_fast.methods import Progress
from clever_fast.nonfinite.guard import FailureGuard
from clever_fast.options import Execution, Run

BUNDLE = "not_finite_step_{}"  # .json says how the step was computed, .pth holds the weights before it


class NotFiniteError(RuntimeError):
    """A loss or gradient was not finite; the last good weights are saved."""


def stop_if_not_finite(
    guard: FailureGuard,
    batches: Batches,
    progress: Progress,
    run: Run,
    execution: Execution,
    save: Callable[[Progress], None],
) -> None:
    """Waits for the device's verdict; if any rank's is bad, saves the last good weights and raises.

    Raises:
        NotFiniteError: names the step, where its batch is written down, and what to try.
    """
    failed = guard.failed_step.clone()
    if dist.is_initialized():
        dist.all_reduce(failed, dist.ReduceOp.MAX)
    if (step := int(failed.item())) < 0:
        return
    save(replace(progress, step=step))  # no update has been made since
    report = run.folder / f"{BUNDLE.format(step)}.json"
    if distributed.is_main():
        about: dict[str, Any] = {
            "data": run.data and str(run.data.resolve()),
            "classes": run.classes and str(run.classes.resolve()),
        }
        about |= {"step": step, "processes": distributed.world_size(), "execution": asdict(execution)}
        report.write_text(json.dumps(about | {"samples": batches.samples(step)}, indent=2) + "\n")
        _keep(run.folder / checkpoint.NEWEST, report.with_suffix(".pth"))
    raise NotFiniteError(
        f"the loss or a gradient was not finite at step {step}; no update was made since. The weights before it are in "
        f"{run.folder / checkpoint.NEWEST}, the files of its batch in {report}. "
        f"`clever-fast replay {run.folder}` finds what failed first. Try --execution.precision fp32, a lower "
        "learning rate, or a longer warm-up"
    )


def _keep(path: Path, name: Path) -> None:
    """Give a checkpoint a second name, which takes no room where the file system has hard links."""
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:
        shutil.copyfile(path, name)
