"""Registers, spills and shared memory of the scans' CUDA kernels, read from the built library; no GPU is needed.

python -m clever_fast.benchmarks.scan_resources
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from clever_fast.benchmarks.measure import DOCS, write_section
from clever_fast.environment import conditions
from clever_fast.ops.extension import LIBRARY

DTYPES = {"f": "float32", "6__half": "float16", "13__nv_bfloat16": "bfloat16"}
TENSOR = ", tensor cores"
LANES, WARPS, ITEMS, STEP = 32, 7, 8, 4  # csrc/selective_scan/device.cuh


def find_cuobjdump() -> str | None:
    """CUDA's own, or the one that comes with Triton."""
    triton = importlib.util.find_spec("triton")
    bundled = f"{Path(triton.origin).parent}/backends/nvidia/bin" if triton and triton.origin else None
    places = (None, "/usr/local/cuda/bin", bundled)  # None: PATH
    return next((found for place in places if (found := shutil.which("cuobjdump", path=place))), None)


def resources(library: Path = LIBRARY) -> dict[tuple[str, str, str], dict[str, int]]:
    """(kernel, dtype or rank, architecture) -> REG, STACK, LOCAL, SHARED, ... as cuobjdump prints them."""
    text = subprocess.run([find_cuobjdump(), "-res-usage", library], capture_output=True, text=True, check=True).stdout
    found, architecture = {}, ""
    for line in text.splitlines():
        if match := re.search(r"arch = (sm_\d+)", line):
            architecture = match[1]
        elif match := re.search(r"(scan|cross)_(forward|backward)_kernel\w*?RankOnTensorCoresILi(\d+)E", line):
            kernel = (f"{match[1]} {match[2]}{TENSOR}", f"R = {match[3]}", architecture)
        elif match := re.search(r"(scan|cross)_(forward|backward)_kernelI\w*?(f|6__half|13__nv_bfloat16)EE", line):
            kernel = (f"{match[1]} {match[2]}", DTYPES[match[3]], architecture)
        elif "REG:" in line:
            found[kernel] = {name: int(value) for name, value in re.findall(r"([A-Z]+):(\d+)", line)}
    return found


def shared_bytes(kernel: str, *, states: int, rank: int, warps: int = WARPS, tensor: bool = False) -> int:
    """Dynamic shared memory of one block, as ScanShared, CrossShared and the forms of low_rank.cuh have it.

    tensor: cross_scan's kernels on tensor cores, for bfloat16 and one state.
    """
    backward = kernel.endswith("backward")
    sums = (states + 2) * WARPS * LANES * backward
    stretches, carry, positions = 2 * 2 * WARPS * LANES, 2 * states * LANES, warps * ITEMS
    if kernel.startswith("scan"):
        return STEP * (stretches + carry + positions * 2 * states + 3 * LANES * (WARPS * ITEMS + 1) + sums)
    common = stretches + WARPS * ITEMS + carry + sums
    if tensor:
        pitch = -(-rank // 16) * 16 + 8
        of_warp = ITEMS * pitch // 2 + 2 * ITEMS + LANES * ITEMS + 2 * -(-rank // 8) * LANES * 4 * backward
        return STEP * (common + LANES * pitch + warps * of_warp)
    padded = -(-rank // 4) * 4
    rows = positions * (-(-(padded + 2 * states) // 4) * 4)
    return STEP * (common + rows + (2 * LANES * padded + positions * (LANES + 1)) * backward)


KERNELS = ("scan forward", "scan backward", "cross forward", "cross backward")
KERNELS += tuple(f"{kernel}{TENSOR}" for kernel in KERNELS[2:])


def table() -> str:
    lines = ["| kernel | " + " | ".join(f"sm_{n}" for n in (80, 90, 100)) + " | spilled bytes | shared memory, KiB |"]
    lines += ["|---|---|---|---|---|---|"]
    found = resources()
    for kernel in KERNELS:
        rows = {key: value for key, value in found.items() if key[0] == kernel}
        registers = []
        for architecture in ("sm_80", "sm_90", "sm_100"):
            values = sorted({v["REG"] for key, v in rows.items() if key[2] == architecture})
            registers.append(" to ".join(map(str, dict.fromkeys((values[0], values[-1])))))
        spilled = max(v["STACK"] + v["LOCAL"] for v in rows.values())
        op, tensor = kernel.removesuffix(TENSOR), kernel.endswith(TENSOR)
        shared = [shared_bytes(op, states=1, rank=rank, tensor=tensor) / 1024 for rank in (6, 48)]
        shared = " to ".join(dict.fromkeys(f"{kib:.1f}" for kib in shared))
        lines.append(f"| {kernel} | {' | '.join(registers)} | {spilled} | {shared} |")
    note = (
        "Registers a thread over the three dtypes or the eight ranks; shared memory at S = 1, from rank 6 (D = 96) to"
    )
    note += " 48 (D = 768)."
    return "\n".join([*lines, "", note, ""])


def build_log() -> str:
    """Builds the library anew and tells how long each compiler took."""
    command = [sys.executable, "setup.py", "build_ext", "--inplace", "--force"]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=True)
    lines, what = ["```", "$ python setup.py build_ext --inplace"], ""
    for line in done.stderr.splitlines():
        if line.startswith("clever_fast: "):
            lines.append(re.sub(r"\S*/(?=nvcc|_C\.so)", "", line))
        elif match := re.search(r"-c csrc/(\S+)", line):
            what = match[1]
        elif " -shared " in line:
            what = "link"
        elif line.startswith("# "):
            lines.append(f"{line.removeprefix('# '):>7}  {what}")
        else:
            lines.append(line)  # a compiler's warning
    facts = conditions()
    nvcc = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release ([\d.]+)", nvcc)
    versions = f"nvcc {release[1] if release else 'none'}, torch {facts['versions']['torch']}"
    return "\n".join([*lines, "```", f"{facts['cores']} cores of an {facts['cpu']}, {versions}, {facts['date']}.", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", action="store_true", help="build the library first, and put the log into the docs")
    if parser.parse_args().build:
        write_section(DOCS / "selective-scan.md", "build", build_log())
    write_section(DOCS / "selective-scan.md", "resources", table())
