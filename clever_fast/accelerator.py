"""Execution made concrete: the device, autocast, memory format and data parallelism."""

import contextlib
import inspect
import os
import platform
from dataclasses import asdict, dataclass, replace
from importlib.metadata import distributions
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clever_fast import distributed
from clever_fast.errors import UserError
from clever_fast.methods import Method
from clever_fast.models import share_statistics
from clever_fast.ops.selection import Kernels
from clever_fast.options import Execution

M = TypeVar("M", bound=nn.Module)
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Accelerator:
    """The device that a run computes on, and an `Execution` without open choices: no `auto`, no 0 for threads."""

    device: torch.device
    execution: Execution

    @classmethod
    def from_execution(cls, execution: Execution) -> "Accelerator":
        """Choose the device and join the process group.

        Raises:
            UserError: a GPU is asked for and there is none, or processes outnumber the GPUs.
        """
        kind = execution.device
        if kind == "auto":
            kind = "cuda" if torch.cuda.is_available() else "cpu"
        if kind == "cuda" and not torch.cuda.is_available():
            raise UserError(
                "execution.device is cuda and torch sees no GPU: check the driver with nvidia-smi, or use "
                "--execution.device cpu"
            )
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        device = torch.device(kind, distributed.local_rank()) if kind == "cuda" else torch.device(kind)
        if kind == "cuda":
            if local_processes > torch.cuda.device_count():
                raise UserError(
                    f"{local_processes} processes on this machine share {torch.cuda.device_count()} GPUs: "
                    "start at most one process a GPU (torchrun --nproc_per_node)"
                )
            torch.cuda.set_device(device)
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        distributed.start(device)
        chosen: dict[str, Any] = {"device": kind}
        if execution.precision == "auto":
            chosen["precision"] = "bf16" if kind == "cuda" or cpu_multiplies_bf16() else "fp32"
        if execution.compile == "auto":
            chosen["compile"] = "on" if kind == "cuda" else "off"
        if not execution.threads:
            chosen["threads"] = max(1, len(os.sched_getaffinity(0)) // local_processes)
        return cls(device, replace(execution, **chosen))

    @property
    def precision(self) -> torch.dtype:
        """Of the networks under autocast; float32 is without autocast."""
        return PRECISIONS[self.execution.precision]

    @property
    def input_dtype(self) -> str:
        """Dtype of the crops: on a GPU that of the computation, so that a network converts nothing; else float32."""
        return str(self.precision).removeprefix("torch.") if self.device.type == "cuda" else "float32"

    def __str__(self) -> str:
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        return f"{where}, {str(self.precision).removeprefix('torch.')}, {self.execution.threads} data threads"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)

    def prepare(self, method: Method) -> Method:
        """Move a method to the device, compiled and checkpointed as the execution says.

        Raises:
            UserError: a network with BatchNorm is to be compiled and checkpointed.
        """
        method = self.place(method)
        fit_for(self.execution.kernels, self.execution.checkpointing, method)
        for network in method.networks() if self.execution.compile != "off" else ():
            norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            if norms and self.execution.checkpointing:
                raise UserError(
                    "execution.checkpointing does not go with compilation where a network has BatchNorm, whose running "
                    "statistics would change between a forward pass and its repetition: add --execution.compile off"
                )
            if any(isinstance(m, nn.SyncBatchNorm) for m in norms):
                continue  # asks every rank's count at every layer, which cuts the graph
            # One graph for each crop size; drop path draws what it would draw uncompiled (fallback_random).
            options = {"fallback_random": True, "triton.cudagraphs": self.execution.compile == "graphs"}
            network.compile(fullgraph=True, dynamic=False, options=options)
        return method

    def place(self, module: M) -> M:
        """Move to the device; BatchNorm shares its statistics over the ranks."""
        shared: Any = module
        if distributed.world_size() > 1:
            released = self.execution.kernels == "released" and self.device.type == "cuda"  # torch's knows GPUs only
            shared = nn.SyncBatchNorm.convert_sync_batchnorm(module) if released else share_statistics(module)
        layout = torch.channels_last if self.execution.channels_last else torch.preserve_format
        placed: M = shared.to(self.device, memory_format=layout)
        return placed

    def parallel(self, module: nn.Module) -> nn.Module:
        """DDP over all ranks; the module itself where there is one process."""
        if distributed.world_size() == 1:
            return module
        # Buffers need no broadcast: BatchNorm is synchronised or per rank, centres are equal by construction.
        name = "forward_sync_buffers"  # since torch 2.13; it was called broadcast_buffers before
        known = inspect.signature(DistributedDataParallel).parameters
        options: dict[str, Any] = {name if name in known else "broadcast_buffers": False}
        return DistributedDataParallel(
            module, gradient_as_bucket_view=True, static_graph=True, bucket_cap_mb=self.execution.bucket_mib, **options
        )


def fit_for(kernels: Kernels, checkpointing: bool, method: Method) -> None:
    """Make a method's networks spell attention out as the released code does, or recompute their activations."""
    network: Any
    for network in method.networks():
        if checkpointing:
            if not hasattr(network, "set_grad_checkpointing"):
                raise UserError(
                    f"execution.checkpointing needs a network that can recompute its activations, and "
                    f"{type(network).__name__} has no set_grad_checkpointing: use --execution.checkpointing false"
                )
            network.set_grad_checkpointing()
        if kernels == "released":
            spell_attention_out(network)


def spell_attention_out(network: nn.Module) -> None:
    """Make a timm ViT write its attention matrices out, as the released code does."""
    module: Any
    for module in network.modules():
        if hasattr(module, "fused_attn"):  # timm's choice of scaled_dot_product_attention
            module.fused_attn = False


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AMX on Intel, AVX-512 BF16 on AMD Zen 4 and newer, Arm's BF16).

    Without it bf16 is emulated and slower than fp32. The answer depends on the processor alone, so a run that is
    resumed on the same kind of machine keeps its precision.
    """
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(found.get(name) for name in ("amx_bf16", "avx512_bf16", "arm_bf16"))


def settings(accelerator: Accelerator) -> dict[str, Any]:
    """What a run's records say about how it is computed: hardware, versions and the flags of torch's libraries."""
    packages = ("torch", "triton", "nvidia-dali-cuda120", "nvidia-dali-cuda130")
    installed = {d.metadata["Name"]: d.version for name in packages for d in distributions(name=name)}
    return {
        **asdict(accelerator.execution),
        "device": str(accelerator.device),
        "precision": str(accelerator.precision),
        "hardware": str(accelerator),
        "processes": distributed.world_size(),
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda, **installed},
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
    }
