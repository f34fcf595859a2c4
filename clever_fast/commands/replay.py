"""`clever-fast replay`: what was not finite first."""

from pathlib import Path
from typing import Literal


def replay(
    run: Path, *, step: int | None = None, data: Path | None = None, device: Literal["cuda", "cpu"] | None = None
) -> None:
    """Do the step at which a run's loss or gradient was not finite again, and name what was so first.

    Args:
        run: folder of the run that stopped.
        step: which failed step; null for the newest.
        data: the run's images, where they have moved.
        device: where to compute; null for the kind of device of the run.
    """
    from clever_fast import replay as replaying

    bundle, _ = replaying.read_bundle(run, step)
    findings = replaying.replay(run, step=step, data=data, device=device)
    images, ranks = len(bundle["samples"]["path"]), bundle["processes"]
    print(f"step {bundle['step']} of {run}: {images} images" + (f" on each of {ranks} ranks" if ranks > 1 else ""))
    for finding in findings:
        print(finding)
    if not findings:
        print("it did not happen again: weights, crops, outputs, losses and gradients are all finite")
