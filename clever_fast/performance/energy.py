"""The energy that a GPU has used, where NVML (the package nvidia-ml-py) tells it."""

from __future__ import annotations

from collections.abc import Callable

import torch


def energy_meter(device: torch.device) -> Callable[[], float] | None:
    """What reads the joules used so far; None on a CPU, without nvidia-ml-py, or where the driver does not tell."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # by its UUID: NVML's numbers know nothing of CUDA_VISIBLE_DEVICES
        gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except pynvml.NVMLError:
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3
