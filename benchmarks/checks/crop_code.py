"""What the ops on crops cost a GPU, counted without one: machine code, bytes, and the time that follows from them.

    python -m clever_fast.benchmarks.checks.crop_code

Compiles every kernel of `deformation` and `photometry` for the crops of a policy and reads the machine code as
`machine_code` does. A kernel takes at least the time in which its bytes move and at least that in which the schedulers
issue its instructions; the prediction is the larger one of the two at HALF of the GPU's peaks. TRITON_INTERPRET must
not be set.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clever_fast.benchmarks.checks.machine_code import ARCHITECTURES, Code, Job, compile_, disassemble, inspect
from clever_fast.benchmarks.measure import DOCS, write_section
from clever_fast.ops.deformation import fused as deformation
from clever_fast.ops.photometry import fused as photometry
from clever_fast.pipelines.augmentations.elastic import FIELD_SIZE
from clever_fast.pipelines.parameters import Sampler
from clever_fast.pipelines.policies import CAUG_PLUS, Policy

HALF = 0.5
BATCH = 128
SIZES = np.tile(np.array([500, 375]), (1024, 1))  # of images that stand for all
COINS = ("elastic", "jitter", "blur")


@dataclass(frozen=True)
class Gpu:
    """multiprocessors with four schedulers each, their clock in Hz, the memory's bandwidth in bytes/s."""

    name: str
    architecture: int
    multiprocessors: int
    clock: float
    bandwidth: float

    @property
    def issue_rate(self) -> float:
        """Instructions of single threads in a second."""
        return self.multiprocessors * 4 * 32 * self.clock


A100 = Gpu("A100", 80, 108, 1.41e9, 1.555e12)
H200 = Gpu("H200", 90, 132, 1.98e9, 4.8e12)


@dataclass(frozen=True)
class Work:
    """Of one kernel in a batch: thread-instructions and bytes of memory, each read or written once."""

    instructions: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.instructions + other.instructions, self.bytes + other.bytes)

    def seconds(self, gpu: Gpu) -> float:
        return max(self.instructions / gpu.issue_rate, self.bytes / gpu.bandwidth) / HALF


def jobs(architecture: int, size: int, dtype: str = "bf16") -> Iterator[Job]:
    """Every kernel as a launch on crops of `size` pixels compiles it; the normalised crops have `dtype`."""
    pixels, values = {"SIZE": size, "BLOCK": photometry.PIXELS}, {"SIZE": size, "BLOCK": photometry.VALUES}
    finish = {"NORMALIZE": True}
    deform = {"SIZE": size, "BLOCK": deformation.BLOCK}
    for name, function, constants, kind in (
        ("turn", deformation.deform, deform | {"FIELD": 0}, "u8"),
        ("deform", deformation.deform, deform | {"FIELD": FIELD_SIZE}, "u8"),
        ("mean_luma", photometry.mean_luma, pixels, "u8"),
        ("colour", photometry.colour, pixels | finish, dtype),
        ("blur_rows", photometry.blur_rows, values, "u8"),
        ("blur_columns", photometry.blur_columns, values | finish, dtype),
    ):
        yield Job(name, f"{size} px", function, constants, photometry.WARPS, kind, architecture)


def per_lane(job: Job) -> tuple[float, float]:
    """Instructions for a pixel (in the blurs for a value): outside of the loop over blocks or taps, and in a round."""
    instructions, loops = disassemble(compile_(job)[1])
    lanes = job.constants["BLOCK"] / (32 * job.warps)
    in_loop = max(map(len, loops), default=0)
    return (len(instructions) - in_loop) / lanes, in_loop / lanes


@lru_cache
def lanes(architecture: int, size: int) -> dict[str, tuple[float, float]]:
    """`per_lane` of every kernel."""
    return {job.kernel: per_lane(job) for job in jobs(architecture, size)}


def work(policy: Policy, architecture: int) -> dict[str, Work]:
    """Of BATCH images under a policy whose views are deformed and then coloured, at the parameters that it expects."""
    drawn = iter(Sampler(SIZES, policy.views, seed=0, batch_size=len(SIZES)).parameters(np.arange(len(SIZES)), 0))
    total = dict.fromkeys(("deform", "mean_luma", "colour", "blur_rows", "blur_columns"), Work(0, 0))
    for view in policy.views:
        crops = [next(drawn) for _ in range(view.count)]
        n = view.size**2 * view.count * BATCH  # pixels
        moved, jittered, blurred = (np.mean([crop.get(coin, 0) for crop in crops]) for coin in COINS)
        radius = np.mean([np.ceil(3 * crop["blur_sigma"][crop["blur"]]).mean() for crop in crops])
        code = lanes(architecture, view.size)
        still, both = sum(code["turn"]), sum(code["deform"])  # a program takes one of two branches
        rows, columns = (code[name][0] + radius * code[name][1] for name in ("blur_rows", "blur_columns"))
        # bytes: uint8 in; uint8 or 16 bits out; 16 bits between the blurs; the field comes from the cache
        total["deform"] += Work(n * ((1 - moved) * still + moved * (both - still)), n * 6)
        total["mean_luma"] += Work(n * jittered * code["mean_luma"][1], n * jittered * 3)
        total["colour"] += Work(n * sum(code["colour"]), n * (3 + 3 * blurred + 6 * (1 - blurred)))
        total["blur_rows"] += Work(n * blurred * 3 * rows, n * blurred * 9)
        total["blur_columns"] += Work(n * blurred * 3 * columns, n * blurred * 12)
    return total


def table(codes: list[tuple[Job, Code]], works: dict[str, dict[str, Work]]) -> str:
    lines = ["| kernel | crops | sm | registers | spills |", "|---|---|---|---|---|"]
    for job, code in codes:
        lines.append(f"| {job.kernel} | {job.variant} | {job.architecture} | {code.registers} | {code.spills} |")
    lines += ["", "| kernel | G instructions | MB | H200, ms, *predicted* | A100, ms, *predicted* |"]
    lines += ["|---|---|---|---|---|"]
    for kernel, of in works["H200"].items():
        other = works["A100"][kernel]
        lines.append(
            f"| {kernel} | {of.instructions / 1e9:.1f} | {of.bytes / 1e6:.0f} | {1e3 * of.seconds(H200):.2f} | "
            f"{1e3 * other.seconds(A100):.2f} |"
        )
    whole = [sum(part.seconds(gpu) for part in works[gpu.name].values()) for gpu in (H200, A100)]
    lines.append(f"| all | | | **{1e3 * whole[0]:.2f}** | **{1e3 * whole[1]:.2f}** |")
    return "\n".join(lines) + "\n\nNot measured on a GPU.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is wrong; exit code 1 if anything is")
    options = parser.parse_args()
    codes = [(job, inspect(job)) for cc in ARCHITECTURES for size in (224, 96) for job in jobs(cc, size)]
    spilled = [(job, code.spills) for job, code in codes if code.spills]
    wrong = [f"{job.kernel}, {job.variant}, sm_{job.architecture}: {spills} spills" for job, spills in spilled]
    works = {gpu.name: work(CAUG_PLUS, gpu.architecture) for gpu in (H200, A100)}
    milliseconds = 1e3 * sum(part.seconds(H200) for part in works["H200"].values())
    if milliseconds > 1:
        wrong.append(f"{milliseconds:.2f} ms a batch of {BATCH} on an H200, above 1")
    if wrong:
        raise SystemExit("\n".join(wrong))
    if not options.check:
        made = table([pair for pair in codes if pair[0].architecture == 90], works)
        write_section(DOCS / "augmentations.md", "crop_code", made)
        print(made)


if __name__ == "__main__":
    main()
