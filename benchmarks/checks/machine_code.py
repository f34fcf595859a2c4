"""What the compiler makes of every Triton kernel and configuration, for GPUs that need not be there.

    python -m clever_fast.benchmarks.checks.machine_code

Compiles ahead of time with Triton's own ptxas and reads the machine code: registers, spills, wide loads, and the
instructions per logit in the hot loop, which decide whether a kernel can be bound by memory. TRITON_INTERPRET must not
be set.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import triton
from rich.progress import track
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from clever_fast.benchmarks.measure import DOCS, write_section
from clever_fast.benchmarks.traffic import G, V
from clever_fast.ops.crop_pairs import kernels, launch
from clever_fast.ops.tensor_lists import fused as tensor_lists

ARCHITECTURES = (80, 90, 100)
BUDGET = 14  # instructions per logit in a forward's hot loop; above it an H200 waits for issue slots (docs/losses.md)
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
FLOAT32 = ["center", "lowest_center", "parts", "grad", "student_stats", "teacher_stats", "loss", "norms", "weight"]
LOGITS = ["student", "teacher", "out"]
SCALARS = ["student_scale", "teacher_scale", "factor", "largest"]
CROPS = {  # of the ops on uint8 crops
    "crops": "*u8", "sharp": "*u8", "rows": "*u16", "parameters": "*fp32", "means": "*fp32", "field": "*fp32",
    "gain": "*fp32",
}  # fmt: skip
TABLES = {"addresses": "*i64", "ends": "*i64", "sizes": "*i64", "owners": "*i32", "places": "*i32"}


@dataclass(frozen=True)
class Job:
    """One kernel as one launch compiles it."""

    kernel: str
    variant: str
    function: triton.JITFunction
    constants: dict
    warps: int
    dtype: str
    architecture: int
    logits: float = 0.0  # per thread in one round of the hot loop, or in all; 0: not counted


@dataclass(frozen=True)
class Code:
    """What its machine code looks like."""

    registers: int
    spills: int  # bytes of stack and instructions that move registers to and from it
    loads: int  # of more than a word's worth of rows: those in the hot loop, or in all
    wide_loads: int  # of 16 bytes
    instructions: float  # per logit


def jobs(architectures: tuple[int, ...], dtypes: tuple[str, ...]) -> Iterator[Job]:
    for cc in architectures:
        for dtype in dtypes:
            for form, number in launch.FORMS.items():
                shared = {"V0": 0, "V": V, "G": G, "FORM": number}
                config = launch.CONFIGS["forward"][cc]
                threads = 32 * config.warps
                for bounded in (True, False):
                    maximum = {"BOUNDED": bounded}
                    variant = f"{form}, {'constant' if bounded else 'running'} maximum"
                    constants = {**shared, **maximum, "UNIT": launch.UNIT, "BLOCK": config.block}
                    logits = (V + G) * config.block / threads
                    yield Job("forward", variant, kernels.forward, constants, config.warps, dtype, cc, logits)
                    if dtype == dtypes[0]:
                        splits = triton.next_power_of_2(config.splits)
                        yield Job(
                            "combine", variant, kernels.combine, {**shared, **maximum, "SPLITS": splits}, 1, dtype, cc
                        )
                config = launch.CONFIGS["backward"][cc]
                for masked in (False, True):
                    constants = {**shared, "UNIT": launch.UNIT, "BLOCK": config.block, "MASKED": masked}
                    variant = f"{form}{', last block incomplete' if masked else ''}"
                    logits = (V + G) * config.block / (32 * config.warps)
                    yield Job("backward", variant, kernels.backward, constants, config.warps, dtype, cc, logits)
        for name in ("clip", "lerp"):
            constants = {"ALIGNED": True, "BLOCK": tensor_lists.BLOCK, "STEPS": tensor_lists.STEPS}
            yield Job(name, "", getattr(tensor_lists, name), constants, tensor_lists.WARPS, "fp32", cc)


def inspect(job: Job) -> Code:
    source, listing = compile_(job)
    instructions, loops = disassemble(listing)
    found = re.search(r"REG:(\d+) STACK:(\d+)", source)
    registers, stack = map(int, found.groups())
    spills = stack + len(re.findall(r"\b(?:STL|LDL)\b", listing))
    body = max(loops, key=len) if loops and job.kernel == "forward" else instructions
    loads = [i for i in body if re.match(r"(@\S+ )?LDG", i)]
    wide = [i for i in loads if ".128" in i]
    return Code(registers, spills, len(loads), len(wide), len(body) / job.logits if job.logits else 0.0)


def faults(job: Job, code: Code) -> list[str]:
    """What is wrong with it, in words."""
    found = []
    if code.spills:
        found.append(f"{code.spills} spills")
    if job.kernel == "forward" and code.wide_loads != code.loads:
        found.append(f"{code.loads - code.wide_loads} of {code.loads} loads in the loop are narrow")
    if job.kernel in ("backward", "clip", "lerp") and not code.wide_loads:
        found.append("no wide load")
    if job.kernel == "forward" and code.instructions > BUDGET:
        found.append(f"{code.instructions:.1f} instructions per logit, above {BUDGET}")
    return found


def compile_(job: Job) -> tuple[str, str]:
    """The resource usage and the assembly listing of a job."""
    names = job.function.arg_names
    types = {
        **CROPS,
        **dict.fromkeys(LOGITS, f"*{job.dtype}"),
        **dict.fromkeys(FLOAT32, "*fp32"),
        **dict.fromkeys(SCALARS, "fp32"),
        **TABLES,
    }
    signature = {name: "constexpr" if name in job.constants else types.get(name, "i32") for name in names}
    # As a launch specialises them: pointers and whole blocks at 16 bytes. K and strides need not be multiples of 16.
    aligned = [i for i, name in enumerate(names) if signature[name].startswith("*") or name == "chunk"]
    compiled = triton.compile(
        ASTSource(
            fn=job.function,
            signature=signature,
            constexprs={(names.index(name),): value for name, value in job.constants.items()},
            attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
        ),
        target=GPUTarget("cuda", job.architecture, 32),
        options={"num_warps": job.warps},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        return _run("cuobjdump", "-res-usage", file.name), _run("nvdisasm", "-c", file.name)


def _run(tool: str, *arguments: str) -> str:
    done = subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def disassemble(listing: str) -> tuple[list[str], list[list[str]]]:
    """All instructions, and those of every loop (from a label to a jump back to it)."""
    labels: dict[str, int] = {}
    instructions: list[str] = []
    for line in listing.splitlines():
        if label := re.match(r"\.(L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(instruction[1])
    loops = []
    for i, instruction in enumerate(instructions):
        jump = re.search(r"BRA.*`\(\.(L_x_\d+)\)", instruction)
        if jump and labels.get(jump[1], i) < i:
            loops.append(instructions[labels[jump[1]] : i + 1])
    return instructions, loops


def table(found: list[tuple[Job, Code]]) -> str:
    lines = [
        "| kernel | logits | sm | block / warps | registers | spills | 16-byte loads | instructions per logit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for job, code in found:
        block = f"{job.constants['BLOCK']:,} / {job.warps}" if "BLOCK" in job.constants else f"1 / {job.warps}"
        name = f"{job.kernel}, {job.variant}" if job.variant else job.kernel
        loads = f"{code.wide_loads} of {code.loads}"
        count = f"{code.instructions:.1f}" if job.logits else ""
        cells = name, job.dtype, job.architecture, block, code.registers, code.spills, loads, count
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + (
        f"\n\nTriton {triton.__version__}; V = {V}, G = {G}. Forward: the loop over whole or that over incomplete "
        "blocks, whichever is longer. Backward: the whole kernel; its narrow loads are a few scalars of each row.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp16", "fp32"])
    parser.add_argument("--check", action="store_true", help="only say what is wrong; exit code 1 if anything is")
    options = parser.parse_args()
    todo = list(jobs(ARCHITECTURES, tuple(options.dtypes)))
    found = [(job, inspect(job)) for job in track(todo, "compiling")]
    wrong = [(job, fault) for job, code in found for fault in faults(job, code)]
    for job, fault in wrong:
        print(f"{job.kernel}, {job.variant}, {job.dtype}, sm_{job.architecture}: {fault}")
    if wrong:
        raise SystemExit(1)
    if not options.check:
        write_section(DOCS / "losses.md", "machine_code", table(found))
        print(f"{len(found)} kernels; the table is in docs/losses.md")


if __name__ == "__main__":
    main()
