"""The library of kernels that setup.py builds from csrc/, and what to do where it, or a part of it, is missing."""

import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from clever_fast.errors import UserError
from clever_fast.ops import selection

LIBRARY = Path(__file__).parents[1] / "_C.so"
REBUILD = "pip install --no-build-isolation --no-deps -e ."
MAX_STATES, MAX_RANK = 16, 128  # csrc/selective_scan/params.h

missing = ""  # why the library is not there; empty where it is
if not LIBRARY.exists():
    missing = f"{LIBRARY} was not built"
else:
    try:
        torch.ops.load_library(LIBRARY)
    except OSError as error:
        missing = f"{LIBRARY} does not load: {error}"


@torch.compiler.assume_constant_result  # dynamo cannot trace torch's answer, and networks are compiled whole
def has_kernels(device_type: str) -> bool:
    """Whether the library holds the kernels of "cpu" or "cuda"."""
    key = {"cpu": "CPU", "cuda": "CUDA"}[device_type]
    return not missing and torch._C._dispatch_has_kernel_for_dispatch_key("clever_fast::selective_scan", key)


def takes_kernel(op: str, x: Tensor) -> bool:
    """Whether `op` on tensors like `x` runs a kernel; else its reference does.

    float64, which is for tests, and devices other than CPU and CUDA take the reference, and so do all where it is asked
    for. So does a CPU without the library, with one warning.

    Raises:
        UserError: `x` is on CUDA and there is no kernel for it.
    """
    if selection.reference_is_asked_for():
        return False
    if x.device.type == "cuda" and not has_kernels("cuda"):
        raise UserError(
            f"{op} on {x.device} needs the CUDA kernels: {missing or f'{LIBRARY} was built without nvcc'}. "
            f"With a CUDA toolkit on PATH run, in the project's folder: {REBUILD}"
        )
    if x.dtype == torch.float64 or x.device.type not in ("cpu", "cuda", "meta"):
        return False
    if missing and x.device.type == "cpu":
        _warn_once()
    return not missing


@cache
def _warn_once() -> None:
    warnings.warn(f"{missing}: the slow reference runs. With a C++ compiler run: {REBUILD}", stacklevel=5)


def describe() -> str:
    """One line on what was built."""
    if missing:
        return f"no kernels: {missing}"
    return "CPU and CUDA kernels" if has_kernels("cuda") else "CPU kernels only, as nvcc was not found"
