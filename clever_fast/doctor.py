"""What a run needs from the machine and whether it is there: each check looks at one thing and knows its remedy."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clever_fast.environment import driver_version, installed_version
from clever_fast.errors import UserError

TRITON_OF_TORCH = {"2.11": "3.6", "2.12": "3.7", "2.13": "3.7", "2.14": "3.8", "2.15": "3.9"}
SAMPLED_FILES = 200


@dataclass(frozen=True)
class Finding:
    """What a check found. A fault keeps a run from starting or from being right; a warning makes it slow or poorer.

    Raises:
        ValueError: a fault or a warning without a remedy.
    """

    about: str
    state: Literal["ok", "warning", "fault"]
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.state != "ok" and not self.remedy:
            raise ValueError(f"a {self.state} needs a remedy: {self.about}, {self.text}")


def check_machine() -> Iterator[Finding]:
    """Findings about what is installed, one after another."""
    for check in (torch_and_driver, gpus, triton, dali, kernels, apex, profilers, cores):
        yield from _safely(check.__name__.replace("_", " "), check)


def check_data(data: Path, classes: Path | None = None) -> Iterator[Finding]:
    """Findings about a folder of images: what its manifest says and how fast its files are read."""
    yield from _safely("data", lambda: manifest_of(data, classes))


def check_disk(run: Path) -> Iterator[Finding]:
    """Findings about where a run would be written."""
    yield from _safely("disk", lambda: free_space(run))


def _safely(about: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except UserError as error:  # "what is wrong: what to do"
        text, _, remedy = str(error).rpartition(": ")
        yield Finding(about, "fault", text or str(error), remedy if text else "correct what is named here")
    except Exception as error:  # a broken installation raises anything
        remedy = (
            "reinstall the package that raises this: pip install --force-reinstall --no-deps -c constraints.txt NAME"
        )
        yield Finding(about, "fault", f"{type(error).__name__}: {' '.join(str(error).split())}", remedy)


def torch_and_driver() -> Iterator[Finding]:
    import torch

    found = f"torch {torch.__version__}"
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11):
        yield Finding("torch", "fault", f"{found} is too old", "pip install -c constraints.txt torch")
    elif torch.cuda.is_available():
        yield Finding("torch", "ok", f"{found}, CUDA {torch.version.cuda}, driver {driver_version() or 'unknown'}")
    elif torch.version.cuda is None:
        remedy = "install a CUDA build of torch from pytorch.org" if driver_version() else ""
        yield Finding(
            "torch", "warning" if driver_version() else "ok", f"{found}, built without CUDA: the CPU is used", remedy
        )
    elif driver := driver_version():
        remedy = f"a driver for CUDA {torch.version.cuda}, or a build of torch for an older CUDA"
        yield Finding(
            "torch", "fault", f"{found} for CUDA {torch.version.cuda} sees no GPU with driver {driver}", remedy
        )
    else:
        yield Finding("torch", "ok", f"{found}, no NVIDIA driver: the CPU is used")


def gpus() -> Iterator[Finding]:
    import torch

    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        text = f"{found.name}, {found.total_memory / 2**30:.0f} GiB, sm_{found.major}{found.minor}"
        known = any(name.endswith(f"_{found.major}{found.minor}") for name in torch.cuda.get_arch_list())
        remedy = "" if known else "a build of torch that lists this architecture"
        yield Finding(f"GPU {index}", "ok" if known else "warning", text, remedy)


def triton() -> Iterator[Finding]:
    import torch

    found, wanted = installed_version("triton"), TRITON_OF_TORCH.get(".".join(torch.__version__.split(".")[:2]))
    needed = torch.cuda.is_available()
    if found is None:
        text = "not installed; the fused losses need it on a GPU"
        yield Finding("Triton", "fault" if needed else "ok", text, f"pip install triton=={wanted}.*" if needed else "")
    elif wanted and not found.startswith(wanted):
        text = f"{found}; torch {torch.__version__} goes with {wanted}"
        yield Finding("Triton", "warning", text, f"pip install triton=={wanted}.*")
    else:
        yield Finding("Triton", "ok", found)


def dali() -> Iterator[Finding]:
    builds = {
        name: found for name in ("nvidia-dali-cuda120", "nvidia-dali-cuda130") if (found := installed_version(name))
    }
    if not builds:
        yield Finding("DALI", "fault", "not installed", "pip install '.[cuda12]' (or cuda13) in the project's folder")
    elif len(builds) > 1:
        remedy = f"pip uninstall {' '.join(builds)}, then install one"
        yield Finding("DALI", "fault", "two builds share one import package and overwrite each other", remedy)
    else:
        from clever_fast.pipelines.dali import types  # noqa: F401  (loads its libraries)

        ((name, found),) = builds.items()
        yield Finding("DALI", "ok", f"{name} {found}")


def kernels() -> Iterator[Finding]:
    import torch

    from clever_fast.ops import extension

    complete = not extension.missing and (extension.has_kernels("cuda") or not torch.cuda.is_available())
    state = "ok" if complete else "fault" if torch.cuda.is_available() else "warning"
    yield Finding("VMamba's kernels", state, extension.describe(), "" if complete else extension.REBUILD)


def apex() -> Iterator[Finding]:
    if not importlib.util.find_spec("apex"):
        yield Finding("Apex", "ok", "not installed; nothing needs it")
    elif importlib.util.find_spec("apex.optimizers"):
        yield Finding("Apex", "ok", "NVIDIA's")
    else:
        text = "the installed `apex` is PyPI's, a web toolkit, not NVIDIA's"
        yield Finding("Apex", "warning", text, "pip uninstall apex; NVIDIA's is built from github.com/NVIDIA/apex")


def profilers() -> Iterator[Finding]:
    found = [name for name in ("nsys", "ncu") if shutil.which(name)]
    yield Finding("profilers", "ok", ", ".join(found) if found else "neither nsys nor ncu on PATH")


def cores() -> Iterator[Finding]:
    import torch

    mine, gpus = len(os.sched_getaffinity(0)), max(1, torch.cuda.device_count())
    text = f"{mine} of {os.cpu_count()} cores are this process's"
    few = torch.cuda.is_available() and mine < 8 * gpus
    remedy = f"{8 * gpus} or more, so that the pipelines keep up" if few else ""
    yield Finding("cores", "warning" if few else "ok", text, remedy)


def manifest_of(data: Path, classes: Path | None) -> Iterator[Finding]:
    from clever_fast.pipelines.manifest import dim_warning, open_manifest

    manifest = open_manifest(data, classes=classes, progress=True)
    bad = len(manifest.unreadable)
    text = f"{len(manifest):,} images of {len(manifest.classes):,} classes, {bad:,} unreadable"
    remedy = f"`clever-fast index {data}` lists the unreadable files; training leaves them out" if bad else ""
    yield Finding("data", "warning" if bad else "ok", text, remedy)
    for note in manifest.notes:
        yield Finding("data", "warning", note, "put each image in the folder of its class, and remove the others")
    side = manifest.sizes.min(axis=1)
    small = int((side < 32).sum())
    if small:
        text = f"{small:,} images have a side below 32 px"
        yield Finding("image sizes", "warning", text, "leave them out with a file for --classes, or delete them")
    else:
        middle = int(np.median(side))
        yield Finding(
            "image sizes", "ok", f"the shorter side is {side.min()} to {side.max()} px, {middle} in the middle"
        )
    if warning := dim_warning(manifest):
        yield Finding("bit depth", "warning", *warning)
    rows = random.Random(0).sample(range(len(manifest)), min(SAMPLED_FILES, len(manifest)))
    begin = time.perf_counter()
    size = sum(len(manifest.read(row)) for row in rows)
    seconds = time.perf_counter() - begin
    text = f"{len(rows) / seconds:,.0f} files/s, {size / seconds / 1e6:,.0f} MB/s by one thread (cached files included)"
    yield Finding("file reads", "ok", text)


def free_space(run: Path) -> Iterator[Finding]:
    folder = next(place for place in (run.absolute(), *run.absolute().parents) if place.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:,.0f} GB free at {folder}"
    if not os.access(folder, os.W_OK):
        yield Finding("disk", "fault", f"{folder} cannot be written", "choose another --run")
    elif free < 5e9:
        yield Finding("disk", "warning", text, "a checkpoint of ViT-S takes 1 GB while another is written")
    else:
        yield Finding("disk", "ok", text)
