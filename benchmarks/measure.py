"""The conditions of a measurement, and the file it is written to."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "timm",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
)


@cache
def conditions() -> dict:
    """Date, commit, hardware and versions, as at the first call: the records that follow it change the tree."""
    import torch

    on_gpu = {}
    if torch.cuda.is_available():
        on_gpu = {"gpu": torch.cuda.get_device_name(), "driver": driver_version(), "cuda": torch.version.cuda}
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain", "-uno") else ""),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        **on_gpu,
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed_version(name))},
    }


def driver_version() -> str | None:
    """Of the NVIDIA driver, as nvidia-smi tells it."""
    if not (tool := shutil.which("nvidia-smi")):
        return None
    words = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.split("\n")[0].strip() or None if done.returncode == 0 else None


def summary(values: list[float]) -> dict[str, float]:
    """Median and extremes of alternating rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "rounds": len(values)}


def append(path: Path, record: dict) -> None:
    """Adds one line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def write_section(page: Path, name: str, text: str) -> None:
    """Puts `text` between the lines `<!-- name:begin -->` and `<!-- name:end -->` of a page."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + text + end + rest.split(end)[1])


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def installed_version(package: str) -> str | None:
    """Of a distribution; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).resolve().parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
