"""Where the code runs: its version and commit, the hardware, and the versions of what it uses."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clever_fast import __version__

# Turns that an OpenMP thread waits for work before it sleeps. libgomp's own 300,000 let two runs stall each other.
OPENMP_SPINS = "1000"
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


@cache
def commit() -> str:
    """The version, and the commit where the package runs from a git checkout; what checkpoints and logs keep."""
    described = _git("describe", "--always", "--dirty", "--exclude=*")
    in_checkout = described and _git("ls-files", "--error-unmatch", Path(__file__).name)
    return f"{__version__}+{described}" if in_checkout else __version__


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
