"""Where a step's time goes: its phases by the clock, its costliest kernels by torch's profiler, memory, a figure."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from clever_fast.accelerator import Accelerator
from clever_fast.methods import Batch
from clever_fast.options import Recipe
from clever_fast.performance.timing import Stepper
from clever_fast.tracing import Stopwatch, emitted, listening

PHASES = ("data", "teacher", "student", "monitors", "loss", "backward", "clip", "optimizer", "ema")
COLOURS = {
    "data": "#9aa5b8", "teacher": "#5b9bd5", "student": "#2f6fdb", "monitors": "#a9c46c", "loss": "#7b61c9",
    "backward": "#1b3f8b", "clip": "#d98f2b", "optimizer": "#e0b23c", "ema": "#4f9d69", "other": "#d5dae3",
}  # fmt: skip


class Cost(NamedTuple):
    """What a kernel, or on a CPU an operator without those that it calls, costs in a step."""

    name: str
    ms: float
    calls: float


def phases(
    recipe: Recipe, accelerator: Accelerator, batches: Iterator[Batch] | None = None, steps: int = 10
) -> dict[str, float]:
    """Milliseconds of a step by its parts in order, `other` at the end; together they are the whole step.

    Of the device on a GPU (events between its kernels; not measured on a GPU), of the host on a CPU.

    Args:
        batches: what the steps are fed with, and then `data` is the wait for it; one fixed batch of noise by default.
        steps: that are timed, after a warm-up.
    """
    return split(timed(Stepper(recipe, accelerator), batches, steps), steps)


def timed(stepper: Stepper, batches: Iterator[Batch] | None, steps: int) -> dict[str, float]:
    """Milliseconds of all ranges of each name in so many steps."""
    watch = Stopwatch(stepper.accelerator.device)
    with listening(watch):
        stepper.lap(batches or stepper.noise, steps)
    return watch.milliseconds()


def split(milliseconds: dict[str, float], steps: int) -> dict[str, float]:
    """The phases of one step from the sums of all ranges."""
    found = {name: milliseconds[name] / steps for name in PHASES if name in milliseconds}
    inside = sum(value for name, value in found.items() if name != "data")
    return found | {"other": milliseconds["step"] / steps - inside}


def ops(milliseconds: dict[str, float], steps: int) -> dict[str, float]:
    """Milliseconds of one step in each op that has a name of its own; part of the phases."""
    return {name: ms / steps for name, ms in milliseconds.items() if name not in (*PHASES, "step")}


def traced(stepper: Stepper, batches: Iterator[Batch] | None, steps: int, trace: Path) -> list[Cost]:
    """Writes `trace` (Chrome's format, for Perfetto; .gz compresses) of so many steps; returns costs, largest first."""
    on_gpu = stepper.accelerator.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with emitted(), profile(activities=kinds) as found:
        stepper.lap(batches or stepper.noise, steps)
        if on_gpu:
            torch.cuda.synchronize()
    found.export_chrome_trace(str(trace))
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    costs = [
        Cost(
            row.key,
            (row.self_device_time_total if on_gpu else row.self_cpu_time_total) / 1e3 / steps,
            row.count / steps,
        )
        for row in found.key_averages()
        if row.device_type == kind and not row.is_user_annotation
    ]
    return sorted(costs, key=lambda cost: -cost.ms)


@contextmanager
def window() -> Iterator[None]:
    """What nsys and ncu look at when they are told to wait for cudaProfilerStart; NVTX ranges are on in it."""
    if not torch.cuda.is_available():
        with emitted():
            yield
        return
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    try:
        with emitted():
            yield
            torch.cuda.synchronize()
    finally:
        torch.cuda.profiler.stop()


def snapshot(stepper: Stepper, path: Path) -> None:
    """Writes who allocated what in one step on a GPU, for pytorch.org/memory_viz; not measured on a GPU."""
    torch.cuda.memory._record_memory_history(max_entries=200_000)
    stepper.lap(stepper.noise, 1)
    torch.cuda.synchronize()
    torch.cuda.memory._dump_snapshot(str(path))
    torch.cuda.memory._record_memory_history(enabled=None)


def commands(words: list[str], out: Path) -> dict[str, list[str]]:
    """The command lines that look at the same window with NVIDIA's tools; `words` are those of `profile`."""
    own = [sys.executable, "-m", "clever_fast.cli", "profile", *words, "--window_only", "true"]
    nsys = ["nsys", "profile", "--capture-range=cudaProfilerApi", "--capture-range-end=stop", "--sample=none"]
    ncu = ["ncu", "--profile-from-start", "off", "--nvtx", "--set", "full", "--force-overwrite", "--export"]
    return {
        "nsys": [*nsys, "--trace=cuda,nvtx,cudnn,cublas", "--force-overwrite=true", f"--output={out / 'nsys'}", *own],
        "ncu": [*ncu, str(out / "ncu"), *own, "--steps", "1"],  # it runs every kernel dozens of times
    }


def run_tools(words: list[str], out: Path) -> None:
    """Prints the command lines; runs those whose tool is on PATH, where there is a GPU."""
    for tool, command in commands(words, out).items():
        print(f"\n{shlex.join(command)}", flush=True)
        if not shutil.which(tool):
            print(f"  {tool} is not on PATH")
        elif not torch.cuda.is_available():
            print("  needs a GPU")
        elif code := subprocess.run(command).returncode:
            print(f"  {tool} ended with exit code {code}")


def draw(phases_ms: dict[str, float], title: str, path: Path) -> None:
    """One horizontal bar of a step's phases."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    whole, left = sum(phases_ms.values()), 0.0
    figure, axis = plt.subplots(figsize=(9, 2.3), constrained_layout=True)
    for name, ms in phases_ms.items():
        share = ms / whole
        axis.barh(0, ms, left=left, color=COLOURS[name], edgecolor="white", label=f"{name}  {ms:,.1f} ms, {share:.0%}")
        if share > 0.08:
            ink = "black" if name in ("data", "other", "optimizer") else "white"
            axis.text(left + ms / 2, 0, f"{name}\n{share:.0%}", ha="center", va="center", color=ink, fontsize=9)
        left += ms
    axis.set(title=title, xlabel="ms of a step", yticks=[], xlim=(0, whole))
    axis.title.set_fontsize(10)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=5, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
