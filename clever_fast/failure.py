"""How a run ends whose loss or gradient is not finite."""

import json
from collections.abc import Callable
from dataclasses import replace

import torch.distributed as dist

from clever_fast import checkpoint, distributed
from clever_fast.data import PretrainingBatches
from clever_fast.methods import Progress
from clever_fast.optimization import FailureGuard
from clever_fast.recipe import Run


class NotFiniteError(RuntimeError):
    """A loss or gradient was not finite; the last good weights are saved."""


def stop_if_not_finite(
    guard: FailureGuard,
    batches: PretrainingBatches,
    progress: Progress,
    run: Run,
    save: Callable[[Progress], None],
) -> None:
    """Waits for the device's verdict; if any rank's is bad, saves the last good weights and raises.

    Raises:
        NotFiniteError: names the step, where its batch is written down, and what to try.
    """
    failed = guard.failed_step.clone()
    if dist.is_initialized():
        dist.all_reduce(failed, dist.ReduceOp.MAX)
    if (step := failed.item()) < 0:
        return
    save(replace(progress, step=step))  # no update has been made since
    report = run.run / f"not_finite_step_{step}.json"
    if distributed.is_main():
        report.write_text(json.dumps({"step": step, "samples": batches.samples(step)}, indent=2) + "\n")
    raise NotFiniteError(
        f"the loss or a gradient was not finite at step {step}; no update was made since. The weights before it are in "
        f"{run.run / checkpoint.NEWEST}, the files of its batch in {report}. "
        "Try --execution.precision fp32, a lower learning rate, or a longer warm-up"
    )
