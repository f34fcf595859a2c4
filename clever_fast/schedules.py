"""Values that change over training, as pure functions of the step."""

import math


def cosine(
    step: int, *, steps: int, start: float, end: float, warmup_steps: int = 0, warmup_start: float = 0.0
) -> float:
    """Linear from `warmup_start` to `start` over `warmup_steps`, then half a cosine from `start` towards `end`.

    Follows DINO's `cosine_scheduler`: the warm-up includes both of its ends, the cosine never quite reaches `end`.
    """
    if step < warmup_steps:
        return warmup_start + (start - warmup_start) * step / max(warmup_steps - 1, 1)
    return end + (start - end) * (1 + math.cos(math.pi * (step - warmup_steps) / max(steps - warmup_steps, 1))) / 2


def linear_epochs(epoch: int, *, start: float, end: float, epochs: int) -> float:
    """`start` at epoch 0, `end` from epoch `epochs - 1` on, linear between; DINO's teacher temperature."""
    return end if epoch >= epochs - 1 else start + (end - start) * epoch / (epochs - 1)
