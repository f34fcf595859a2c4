"""What VMamba's scans execute and move in a training step, counted from machine code; no GPU is needed.

    python -m clever_fast.benchmarks.scan_counts [--label TEXT]

compiles csrc/selective_scan/cuda_cross_*.cu for sm_80 and sm_90 with markers, counts the warp instructions of every
launch of a step (benchmarks/instruction_count.py), appends a record to benchmarks/results/scan_counts.jsonl and writes
the table of docs/selective-scan.md from the first and the last record. Needs nvcc and a checkout.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from functools import cache
from math import ceil
from pathlib import Path

from clever_fast.benchmarks.instruction_count import Count, count
from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.benchmarks.sass import Instruction, parse
from clever_fast.benchmarks.scan_launches import BATCH, GPUS, LANES, NETWORKS, WAYS, Gpu, Launch, step
from clever_fast.benchmarks.scan_resources import find_cuobjdump
from clever_fast.environment import conditions

SOURCE = DOCS.parent / "csrc/selective_scan"
RESULTS = Path(__file__).parent / "results/scan_counts.jsonl"
TOTALS = {"instructions": "", "bytes": "", "issue_ms": "by units", "memory_ms": "by memory", "ms": "estimated"}


def compiled(
    capability: int, folder: Path, *flags: str
) -> tuple[dict[tuple[str, int], list[Instruction]], dict[tuple[str, int], dict[str, int]]]:
    """(way, rank) -> instructions of bfloat16's kernel, and (way, rank) -> its registers and spilled bytes."""
    code, usage, cubins = {}, {}, []
    for way in WAYS:
        cubins.append(folder / f"{way}_{capability}.cubin")
        command = ["nvcc", "-std=c++17", "-O3", f"-arch=sm_{capability}", "-cubin", "-DCLEVER_FAST_COUNT", *flags]
        subprocess.run([*command, str(SOURCE / f"cuda_cross_{way}.cu"), "-o", str(cubins[-1])], check=True)
    for cubin in cubins:
        code |= {kernel_of(name): found for name, found in parse(_dumped("-sass", cubin)).items() if kernel_of(name)}
        name = None
        for line in _dumped("-res-usage", cubin).splitlines():
            if match := re.search(r"Function (\S+?):", line):
                name = kernel_of(match[1])
            elif "REG:" in line and name:
                usage[name] = {key: int(value) for key, value in re.findall(r"([A-Z]+):(\d+)", line)}
    return code, usage


def _dumped(option: str, cubin: Path) -> str:
    return subprocess.run([find_cuobjdump(), option, cubin], capture_output=True, text=True, check=True).stdout


def kernel_of(symbol: str) -> tuple[str, int] | None:
    """(way, rank) of a kernel on tensor cores."""
    match = re.search(r"cross_(forward|backward)_kernel\w*RankOnTensorCoresILi(\d+)E", symbol)
    return (match[1], int(match[2])) if match else None


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
    found = {"blocks_per_sm": fit, "waves": round(waves, 2), "unit": unit, "memory_bytes": moved}
    return found | {
        "issue_ms": issue * 1e3,
        "memory_ms": memory * 1e3,
        "latency_ms": latency * 1e3,
        "ms": estimated * 1e3,
    }


def record(gpu: Gpu, *flags: str) -> dict:
    """One GPU's counts and estimates: VMamba-T's step launch by launch, and of each network what an image takes."""
    with tempfile.TemporaryDirectory() as folder:
        code, usage = compiled(gpu.capability, Path(folder), *flags)
    numbers = places()

    @cache
    def row(launch: Launch) -> dict:
        visited = {numbers[name]: times for name, times in launch.visits.items()}
        counted = count(code[launch.way, launch.rank], launch.blocks * launch.warps, visited)
        used = usage[launch.way, launch.rank]
        found = {"kernel": launch.way, **{name: getattr(launch, name) for name in ("images", "channels", "side")}}
        found |= {name: getattr(launch, name) for name in ("elements", "shared", "blocks", "warps")}
        found |= {"registers": used["REG"], "spilled": used["STACK"] + used["LOCAL"]}
        found |= {"instructions": counted.instructions, "bytes": launch.bytes()}
        return found | estimate(gpu, launch, counted, used["REG"])

    launches = [row(launch) | {"runs": runs} for launch, runs in step()]
    each = {name: sum(runs * row(launch)["ms"] for launch, runs in step(name)) / BATCH for name in NETWORKS}
    facts = {"benchmark": "scan_counts", "gpu_counted": gpu.name, "launches": launches, "ms_per_image": each}
    return facts | conditions()


def total(record: dict, what: str) -> float:
    """Of a whole step: "instructions", "bytes", "ms" or another column."""
    values = ((row["runs"], row[what]) for row in record["launches"])
    return sum(runs * (sum(value.values()) if isinstance(value, dict) else value) for runs, value in values)


def line(row: dict) -> str:
    """A launch in one line."""
    each = sum(row["instructions"].values()) / (row["elements"] / LANES)
    return (
        f"{row['kernel']:8} {row['channels']:3} x {row['side']}²: {each:6.1f} instructions an element, "
        f"{row['registers']} registers, {row['blocks_per_sm']} blocks, {row['waves']} waves; "
        f"{row['unit']} {row['issue_ms']:.2f} ms, memory {row['memory_ms']:.2f}, latency {row['latency_ms']:.2f}"
    )


def table(records: list[dict]) -> str:
    """Before and after, of each GPU: its first record and its last. Markdown."""
    lines = []
    for gpu in GPUS:
        of_gpu = [r for r in records if r["gpu_counted"] == gpu.name]
        before, after = of_gpu[0], of_gpu[-1]
        lines += [f"{gpu.name}, before → after:", ""]
        heads = ["kernel, images x channels x side²", "instructions an element", "registers", "blocks a multiprocessor"]
        heads += ["waves", "units, ms", "memory, ms", "latency, ms", "**estimate, ms**"]
        lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for old, new in zip(before["launches"], after["launches"], strict=True):
            cells = [f"{new['kernel']}, {new['images']:,} x {new['channels']} x {new['side']}²"]
            each = [sum(r["instructions"].values()) / r["elements"] * LANES for r in (old, new)]
            cells.append(f"{each[0]:.0f} → {each[1]:.0f}")
            cells += [f"{old[name]} → {new[name]}" for name in ("registers", "blocks_per_sm", "waves")]
            cells += [f"{old[name]:.2f} → {new[name]:.2f}" for name in ("issue_ms", "memory_ms", "latency_ms")]
            lines.append(f"| {' | '.join(cells)} | **{old['ms']:.2f} → {new['ms']:.2f}** |")
        whole = {name: [total(r, name) for r in (before, after)] for name in TOTALS}
        giga = {name: [value / 1e9 for value in whole[name]] for name in ("instructions", "bytes")}
        ms = ", ".join(
            f"{whole[name][0]:.0f} → {whole[name][1]:.0f} ms {what}" for name, what in TOTALS.items() if what
        )
        (old, new), (asked, asks) = giga["instructions"], giga["bytes"]
        lines += [
            "",
            f"A step of VMamba-T: **{old:.1f} → {new:.1f} G warp instructions**, {asked:.0f} → {asks:.0f} GB asked of "
            f"the caches, {ms}. Commits {before['commit']} and {after['commit']}, {after['date']}.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--label", default="", help="what the record is of, in words")
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    for gpu in GPUS:
        found = {"label": options.label, **record(gpu)}
        for row in found["launches"]:
            print(gpu.name, line(row))
        sums = ", ".join(f"{name} {total(found, name):.1f}" for name in ("issue_ms", "memory_ms", "ms"))
        instructions, moved = (total(found, name) / 1e9 for name in ("instructions", "bytes"))
        print(
            f"{gpu.name}: {instructions:.1f} G instructions, {moved:.0f} GB, {sums}; an image {found['ms_per_image']}"
        )
        if not options.dry:
            append(RESULTS, found)
    if not options.dry:
        records = [json.loads(text) for text in RESULTS.read_text().splitlines()]
        write_section(DOCS / "selective-scan.md", "counts", table(records))


if __name__ == "__main__":
    main()
