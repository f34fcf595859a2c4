"""All that a machine with a GPU is asked at once: build, tests, compute-sanitizer, benchmarks, a profile, a report.

    python benchmarks/on_gpu.py [--out bench] [--minutes 20] [--only tests scan]

`make gpu` runs it. A part that fails is named and the next one runs; records are written as they come, so a part that
is cut keeps what it had. It needs nothing but Python: what torch, DALI or jsonargparse are needed for is left out where
they are missing, and said so. Not run on a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT_S = 60  # kept for the report at the end
PROBE = """
import torch
gpu = torch.cuda.is_available() and torch.cuda.get_device_properties(0)
print(f"{gpu.major}.{gpu.minor}" if gpu else "")
print(f"torch {torch.__version__}, {f'{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB' if gpu else 'no GPU'}")
"""
LIBRARY = """
from clever_fast.ops import extension
print(extension.describe())
raise SystemExit(not extension.has_kernels("cuda"))
"""
RECORDS = """
import sys
from pathlib import Path
from clever_fast.benchmarks import measure, {module}
for row in {module}.run({options}):
    measure.append(Path(sys.argv[1]) / "{module}.jsonl", row)
    print(row, flush=True)
"""


@dataclass(frozen=True)
class Part:
    """One command. needs: modules without which it is left out. seconds: after which it is cut."""

    name: str
    command: list[str]
    seconds: int
    needs: tuple[str, ...] = ("torch",)


def parts(out: Path) -> list[Part]:
    python, cli = [sys.executable], [sys.executable, "-m", "clever_fast.cli"]
    pytest = [*python, "-m", "pytest", "-q", "-m", "gpu"]
    if is_there("xdist"):
        pytest += ["-n", str(min(4, os.cpu_count() or 1))]
    pip = [*python, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "-e", "."]
    losses, scan = (
        RECORDS.format(module="ops", options="predict=False"),
        RECORDS.format(module="scan", options="rounds=3"),
    )
    records, recipes = ["--records", str(out)], "clever_vits16_in100,clever_resnet50_in100,clever_vmambat_in100"
    noise = ["--recipe", "clever_vits16_in100", "--recipe.batch_size", "128", "--steps", "5", "--tools", "none"]
    step = ["--recipes", recipes, "--rounds", "3", "--seconds", "2"]
    commands, dali = ("torch", "jsonargparse"), ("torch", "jsonargparse", "nvidia.dali")
    return [
        Part("build", pip, 240, ("torch", "setuptools", "pip")),
        Part("library", [*python, "-c", LIBRARY], 60),
        Part("tests", [*pytest, "tests", "-k", "not compute_sanitizer"], 400, ("torch", "pytest")),
        Part("sanitizer", [*pytest, "tests/ops/test_sanitizer.py"], 150, ("torch", "pytest")),
        Part("losses", [*python, "-c", losses, str(out)], 240, ("torch", "pytest")),
        Part("scan", [*python, "-c", scan, str(out)], 150),
        Part("step", [*cli, "bench", "step", *step, *records], 240, commands),
        Part("profile", [*cli, "profile", *noise, "--out", str(out / "profile")], 120, commands),
        decoder_sweep(out),
        Part("epoch", [*cli, "bench", "epoch", "--max_steps", "20", "--rounds", "2", *records], 120, dali),
        Part("report", [*cli, "bench", "report", *records], REPORT_S, commands),
    ]


def decoder_sweep(out: Path) -> Part:
    """Decoding at every share of the hardware decoder; see benchmarks/decoder_sweep.py."""
    command = [sys.executable, "-m", "clever_fast.benchmarks.decoder_sweep", "--out", str(out), "--seconds", "0.5"]
    return Part("decoder", command, 150, ("torch", "nvidia.dali"))


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent's
        return False


def verdict(part: Part, log: Path, seconds: float, capability: str) -> str:
    """Runs a part, its output in `log`; "ok", or in words why not."""
    if missing := [module for module in part.needs if not is_there(module)]:
        return f"left out: {', '.join(missing)} not installed"
    if not capability:
        return "left out: no GPU"
    if seconds < 5:
        return "left out: the time is over"
    environment = os.environ | {"TORCH_CUDA_ARCH_LIST": capability}
    with log.open("w") as file:
        process = subprocess.Popen(
            part.command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"CUT after {seconds:.0f} s; see {log}"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return "ok" if code == 0 else f"FAILED with exit code {code}; see {log}"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for records and logs")
    parser.add_argument("--minutes", type=float, default=20, help="that all of it may take")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts, of those that a whole run names")
    options = parser.parse_args(words)
    end, out = time.monotonic() + 60 * options.minutes, options.out.resolve()
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    capability, about, *_ = [*probe.stdout.split("\n"), "", ""]
    lines = [f"Python {sys.version.split()[0]}, {about or 'no torch'}, nvcc: {shutil.which('nvcc') or 'not on PATH'}"]
    print(lines[0], flush=True)
    for part in parts(out):
        if options.only and part.name not in options.only:
            continue
        begin = time.monotonic()
        left = end - begin - (0 if part.name == "report" else REPORT_S)
        said = verdict(part, logs / f"{part.name}.log", min(part.seconds, left), capability)
        lines.append(f"{part.name:9} {time.monotonic() - begin:5.0f} s  {said}")
        print(lines[-1], flush=True)
        if said.startswith(("FAILED", "CUT")):
            print("\n".join(f"    {line}" for line in (logs / f"{part.name}.log").read_text().split("\n")[-15:]))
    (out / "summary.txt").write_text("\n".join(lines) + "\n")
    return any("FAILED" in line or "CUT" in line for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
