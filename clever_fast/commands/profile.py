"""`clever-fast profile`: where the time and the memory of a training step go."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from clever_fast.accelerator import Accelerator
from clever_fast.benchmarks.measure import append
from clever_fast.command_line import parse
from clever_fast.data import PretrainingBatches
from clever_fast.environment import conditions
from clever_fast.errors import UserError
from clever_fast.monitoring.metrics import peak_memory_mib
from clever_fast.performance import profiling
from clever_fast.performance.timing import Stepper
from clever_fast.pipelines.manifest import open_manifest

DESCRIPTION = (
    "Time the parts of a training step, trace it, and list its costliest kernels; on a GPU also its memory, and the "
    "same window for nsys and ncu. Takes recipes, executions and overrides as pretrain does."
)
TOP, MOST_TRACED = 10, 5  # rows of the table; steps of a trace, which is large


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is profiled besides the recipe and the execution.

    Args:
        data: folder of class folders; a fixed batch of noise where none is given.
        classes: file with one class folder a line, for a subset.
        out: folder that is written to.
        steps: that are timed, after a warm-up.
        tools: auto runs nsys and ncu where they are on PATH and there is a GPU.
        window_only: run the steps between cudaProfilerStart and Stop with NVTX ranges, and nothing else.
    """

    data: Path | None = None
    classes: Path | None = None
    out: Path = Path("profile")
    steps: int = 10
    tools: Literal["auto", "none"] = "auto"
    window_only: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps is {self.steps}; it must be at least 1")


def profile(words: list[str]) -> None:
    """Write `phases.jsonl`, `phases.png`, `trace.json.gz` and, on a GPU, `memory.pickle`; print the tables."""
    recipe, execution, options = parse("profile", DESCRIPTION, Profile, words)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it reports its stages, and a missing GPU as an error
    if not options.window_only:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {options.out}: {error.strerror}; choose another --out") from None
    accelerator, batches = Accelerator.from_execution(execution), None
    if options.data:
        manifest = open_manifest(options.data, classes=options.classes, progress=True)
        batches = PretrainingBatches(manifest, recipe, accelerator)
    try:
        _profile(words, recipe, accelerator, options, iter(batches) if batches else None)
    finally:
        if batches:
            batches.close()


def _profile(words, recipe, accelerator, options: Profile, stream) -> None:
    stepper = Stepper(recipe, accelerator)
    stepper.lap(stream or stepper.noise, 2)
    if options.window_only:
        with profiling.window():
            stepper.lap(stream or stepper.noise, options.steps)
        return
    out = options.out
    print(f"{recipe.method.name} {recipe.backbone.name}, batch {recipe.batch_size}, on {accelerator}", flush=True)
    milliseconds = profiling.timed(stepper, stream, options.steps)
    phases, ops = profiling.split(milliseconds, options.steps), profiling.ops(milliseconds, options.steps)
    costs = profiling.traced(stepper, stream, min(options.steps, MOST_TRACED), out / "trace.json.gz")
    whole, memory = sum(phases.values()), peak_memory_mib(accelerator.device)
    on_gpu = accelerator.device.type == "cuda"
    console = Console(width=100, highlight=False)
    rate = f"{1e3 * recipe.batch_size / whole:,.1f} images/s"
    console.print(f"a step takes {whole:,.1f} ms, {rate}, of which\n")
    console.print(_table("phase", phases, whole))
    console.print()
    console.print(_table("op, within the phases", ops, whole))
    console.print()
    title = f"the {TOP} costliest {'kernels' if on_gpu else 'operators'} x calls a step"
    console.print(_table(title, {f"{c.name} x {c.calls:g}": c.ms for c in costs[:TOP]}, sum(c.ms for c in costs)))
    console.print(f"\npeak memory {memory:,.0f} MiB{'' if on_gpu else ' (resident, of the whole process)'}")
    record = {
        "benchmark": "phases",
        "recipe": recipe.as_dict(),
        "hardware": str(accelerator),
        "execution": accelerator.execution.kernels,
        "batch": recipe.batch_size,
        "data": options.data.name if options.data else "noise",
        "steps": options.steps,
        "phases_ms": phases,
        "ops_ms": ops,
        "costliest": [cost._asdict() for cost in costs[:TOP]],
        "peak_mib": memory,
    }
    append(out / "phases.jsonl", record | conditions())
    profiling.draw(phases, f"{recipe.method.name} {recipe.backbone.name}, {rate}, {accelerator}", out / "phases.png")
    written = ["phases.jsonl", "phases.png", "trace.json.gz (open it at ui.perfetto.dev)"]
    if on_gpu:
        profiling.snapshot(stepper, out / "memory.pickle")
        written.append("memory.pickle (open it at pytorch.org/memory_viz)")
    print(f"{out}: {', '.join(written)}")
    if options.tools == "auto":
        profiling.run_tools(words, out)


def _table(what: str, rows: dict[str, float], whole: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(what, no_wrap=True, max_width=72)
    table.add_column("ms a step", justify="right")
    table.add_column("share", justify="right")
    for name, ms in rows.items():
        table.add_row(name, f"{ms:,.2f}", f"{ms / whole:.1%}")
    return table
