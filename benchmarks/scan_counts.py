"""What VMamba-T's scans execute and move in a training step, counted from machine code; no GPU is needed.

    python -m clever_fast.benchmarks.scan_counts [--label TEXT]

compiles csrc/selective_scan/cuda_cross.cu for sm_80 and sm_90 with markers, counts the warp instructions of every launch
of a step (benchmarks/instruction_count.py), and appends a record to benchmarks/results/scan_counts.jsonl. Needs nvcc and
a checkout.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path

import torch

from clever_fast.benchmarks.instruction_count import Count, Instruction, count, parse
from clever_fast.benchmarks.measure import DOCS, append, conditions
from clever_fast.benchmarks.scan_resources import find_cuobjdump, shared_bytes
from clever_fast.ops.cross_scan.fused import image_groups
from clever_fast.ops.selective_scan.fused import channel_splits, segment_length

SOURCE = DOCS.parent / "csrc/selective_scan"
RESULTS = Path(__file__).parent / "results/scan_counts.jsonl"
CUDA = torch.device("cuda")
BATCH, LANES, ITEMS = 128, 32, 8
DEPTHS = {96: 2, 192: 2, 384: 8, 768: 2}  # VMamba-T: blocks by channels
SIDES = {224: (56, 28, 14, 7), 96: (24, 12, 6, 3)}
CROPS = {224: 2, 96: 8}
WAYS = ("forward", "backward")


@dataclass(frozen=True)
class Gpu:
    """What a launch is held against. Clock: the highest that holds under load. Bandwidth: of a large copy."""

    name: str
    capability: int
    multiprocessors: int
    ghz: float
    tb_s: float
    shared_kib: int  # of a multiprocessor
    l2_mib: int


# Datasheets and the CUDA C++ Programming Guide's table of compute capabilities; what an H200 copies is measured.
GPUS = (Gpu("A100", 80, 108, 1.41, 2.0, 164, 40), Gpu("H200", 90, 132, 1.755, 4.3, 228, 50))


@dataclass(frozen=True)
class Launch:
    """One kernel of one block of the network over all its crops of one size."""

    way: str  # forward or backward
    images: int
    channels: int
    side: int

    @cached_property
    def rank(self) -> int:
        return ceil(self.channels / 16)

    @cached_property
    def positions(self) -> int:
        return self.side**2

    @cached_property
    def segment(self) -> int:
        return segment_length(self.positions, CUDA)

    @cached_property
    def warps(self) -> int:
        """Of one block."""
        return self.segment // ITEMS

    @cached_property
    def segments(self) -> int:
        return ceil(self.positions / self.segment)

    @cached_property
    def tiles(self) -> int:
        return ceil(self.channels / LANES)

    @cached_property
    def splits(self) -> int:
        return channel_splits(self.channels, CUDA)

    @cached_property
    def groups(self) -> int:
        return image_groups(self.images, CUDA)

    @cached_property
    def blocks(self) -> int:
        return self.images * self.tiles if self.way == "forward" else self.groups * self.splits

    @cached_property
    def elements(self) -> int:
        """Positions of channels of directions."""
        return 4 * self.images * self.positions * self.channels

    @cached_property
    def shared(self) -> int:
        return shared_bytes(f"cross {self.way}", states=1, rank=self.rank, warps=self.warps)

    @cached_property
    def visits(self) -> dict[str, int]:
        """How many warps of the launch visit each place that the source marks (tests: the emulator counts the same)."""
        sweeps = self.images * self.tiles * 4  # of a block over an image in one direction
        segments = sweeps * self.segments * self.warps
        width, padded = self.rank + 2, ceil(self.rank / 4) * 4
        rows = ceil(ITEMS / max(1, LANES // width))
        stride = ceil((padded + 2) / 4) * 4
        found = {
            "PADDING": self.blocks * self.warps * ceil(ITEMS * stride / LANES),
            "CARRY": sweeps,
            "DIRECTION": sweeps * self.warps,
            "SEGMENT": segments,
            "ROWS": segments * rows,
            "COLUMNS": segments * rows * ceil(width / LANES),
            "RANKS": segments * padded // 4,
            "STATES": segments,
            "WARPS": segments * self.warps * WAYS.index(self.way) + segments * self.warps,
        }
        if self.way == "backward":
            tasks = sweeps * self.segments * ceil(self.segment * padded // 4 / LANES)
            found |= {
                "IMAGES": self.images * self.splits * self.warps,
                "IMAGE": self.images * self.tiles * self.warps,
                "SUMS": sweeps * self.warps * 3,
                "STAGED": sweeps * padded,
                "SUMMED": sweeps * 3,
                "SUMMED_WARPS": sweeps * 3 * self.warps,
                "WRITTEN": sweeps * self.rank,
                "TASK": tasks,
                "TASK_CHANNEL": tasks * LANES,
                "FOUR_RANKS": sweeps * self.segments * padded // 4,
                "POSITION": sweeps * self.segments * padded // 4 * self.segment,
            }
        return found

    def bytes(self, passes: int = 4) -> int:
        """Global memory read and written; x, y, dy and dx `passes` times, once where a cache holds an image meanwhile.

        What a sum adds to is read and written.
        """
        image, width = self.images * self.positions, self.rank + 2
        low, states = 2 * 4 * width * image, 4 * 4 * self.images * self.segments * self.channels
        added = image * self.channels * (4 + 8 * (passes - 1))  # y or dx
        total = low * self.tiles + states + image * self.channels * 2 * passes + added
        if self.way == "backward":
            sums = 4 * (self.rank + 3) * self.channels * 4 * self.groups
            dlow = self.splits * image * 4 * width * 4 * (1 if passes == 1 else 2 * self.tiles / self.splits - 1)
            total += image * self.channels * 4 * passes + 2 * sums + int(dlow)
        return total


def step() -> Iterator[tuple[Launch, int]]:
    """Every launch of a training step of VMamba-T, 128 images of 2x224 + 8x96 px, and how often it runs.

    The student's network takes all crops, forward and backward; the teacher's takes those of 224 px, forward.
    """
    for size, sides in SIDES.items():
        for (channels, depth), side in zip(DEPTHS.items(), sides, strict=True):
            for way in WAYS:
                teacher = way == "forward" and size == 224
                yield Launch(way, BATCH * CROPS[size], channels, side), depth * (2 if teacher else 1)


def compiled(
    capability: int, folder: Path, *flags: str
) -> tuple[dict[str, list[Instruction]], dict[str, dict[str, int]]]:
    """(way -> instructions of bfloat16's kernel, way -> its registers and spilled bytes)."""
    cubin = folder / f"{capability}.cubin"
    command = ["nvcc", "-std=c++17", "-O3", f"-arch=sm_{capability}", "-cubin", "-DCLEVER_FAST_COUNT", *flags]
    subprocess.run([*command, str(SOURCE / "cuda_cross.cu"), "-o", str(cubin)], check=True)

    def dumped(option: str) -> str:
        return subprocess.run([find_cuobjdump(), option, cubin], capture_output=True, text=True, check=True).stdout

    code = {kernel_way(name): found for name, found in parse(dumped("-sass")).items() if kernel_way(name)}
    usage, name = {}, ""
    for line in dumped("-res-usage").splitlines():
        if match := re.search(r"Function (\S+?):", line):
            name = kernel_way(match[1])
        elif "REG:" in line and name:
            usage[name] = {key: int(value) for key, value in re.findall(r"([A-Z]+):(\d+)", line)}
    return code, usage


def kernel_way(symbol: str) -> str:
    match = re.search(r"cross_(forward|backward)_kernelI13__nv_bfloat16", symbol)
    return match[1] if match else ""


def places() -> dict[str, int]:
    """The numbers of the places that the source marks, from its enumeration."""
    names = re.search(r"enum Place \{(.*?)\}", (SOURCE / "device.cuh").read_text(), re.S)[1]
    return {name.split("=")[0].strip(): i for i, name in enumerate(names.split(","), 1)}


def resident(gpu: Gpu, launch: Launch, registers: int) -> int:
    """Blocks that a multiprocessor holds at once: registers come in units of 8 a thread, shared memory of 128 bytes."""
    by_registers = 65536 // (ceil(registers / 8) * 8 * LANES * launch.warps)
    by_shared = gpu.shared_kib * 1024 // (ceil(launch.shared / 128) * 128 + 1024)
    return min(32, 64 // launch.warps, by_registers, by_shared)


def estimate(gpu: Gpu, launch: Launch, counted: Count, registers: int) -> dict[str, float | str]:
    """Milliseconds of one launch: its units filled, its bytes at full speed, and with its latencies.

    The last: so many warps as fit hide each other's waits, each alone as slow as its instructions one after another;
    the last wave of blocks takes as long as a full one. The largest of the three is the estimate.
    """
    fit = resident(gpu, launch, registers)
    slots = fit * gpu.multiprocessors
    waves = launch.blocks / slots
    clocks, unit = counted.clocks(gpu.capability)
    stretched = ceil(waves) / waves if waves > 1 else 1 / waves
    hertz = gpu.ghz * 1e9
    busy = min(gpu.multiprocessors, launch.blocks)
    issue = clocks / busy / hertz
    alone = counted.alone / (launch.blocks * launch.warps)  # of one warp
    latency = alone * ceil(waves) / hertz
    working_set = min(slots, launch.blocks) * LANES * launch.positions * (6 if launch.way == "forward" else 10)
    cached = working_set < gpu.l2_mib * 2**20 / 2
    moved = launch.bytes(1 if cached else 4)
    memory = moved / (gpu.tb_s * 1e12)
    estimated = max(issue * min(stretched, 2), memory, latency)
    return {
        "blocks_per_sm": fit, "waves": round(waves, 2), "unit": unit, "issue_ms": issue * 1e3, "memory_ms": memory * 1e3,
        "latency_ms": latency * 1e3, "ms": estimated * 1e3, "memory_bytes": moved,
    }  # fmt: skip


def record(gpu: Gpu, *flags: str) -> dict:
    """One GPU's counts and estimates of a whole step, launch by launch."""
    with tempfile.TemporaryDirectory() as folder:
        code, usage = compiled(gpu.capability, Path(folder), *flags)
    numbers, rows = places(), []
    for launch, runs in step():
        visited = {numbers[name]: times for name, times in launch.visits.items()}
        counted = count(code[launch.way], launch.blocks * launch.warps, visited)
        rows.append({
            "kernel": launch.way, "images": launch.images, "channels": launch.channels, "side": launch.side, "runs": runs,
            "elements": launch.elements, "registers": usage[launch.way]["REG"],
            "spilled": usage[launch.way]["STACK"] + usage[launch.way]["LOCAL"], "shared": launch.shared,
            "blocks": launch.blocks, "warps": launch.warps, "instructions": counted.instructions, "bytes": launch.bytes(),
            **estimate(gpu, launch, counted, usage[launch.way]["REG"]),
        })  # fmt: skip
    return {"benchmark": "scan_counts", "gpu_counted": gpu.name, "launches": rows, **conditions()}


def total(record: dict, what: str) -> float:
    """Of a whole step: "instructions", "bytes", "ms" or another column."""
    return sum(
        row["runs"] * (sum(row[what].values()) if isinstance(row[what], dict) else row[what])
        for row in record["launches"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--label", default="", help="what the record is of, in words")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    for gpu in GPUS:
        found = {"label": options.label, **record(gpu)}
        for row in found["launches"]:
            per = sum(row["instructions"].values()) / (row["elements"] / LANES)
            print(f"{gpu.name} {row['kernel']:8} {row['channels']:3} x {row['side']}²: {per:6.1f} an element, {row['registers']} registers, "
                  f"{row['blocks_per_sm']} blocks, {row['waves']} waves, {row['unit']} {row['issue_ms']:.2f} ms, memory "
                  f"{row['memory_ms']:.2f}, latency {row['latency_ms']:.2f}")  # fmt: skip
        print(f"{gpu.name}: {total(found, 'instructions') / 1e9:.1f} G warp instructions, {total(found, 'bytes') / 1e9:.0f} GB, "
              f"{total(found, 'issue_ms'):.1f} ms by units, {total(found, 'memory_ms'):.1f} by memory, {total(found, 'ms'):.1f} in all")  # fmt: skip
        if not options.dry:
            append(RESULTS, found)


if __name__ == "__main__":
    main()
