"""Execution made concrete: the device, autocast, memory format and data parallelism."""

import contextlib
import inspect
import os
import platform
from dataclasses import dataclass, fields
from importlib.metadata import distributions
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clever_fast import distributed
from clever_fast.errors import UserError
from clever_fast.methods import Method
from clever_fast.models import share_statistics
from clever_fast.ops.selection import Kernels
from clever_fast.recipe import Execution, OptimizerForm

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Accelerator:
    """An `Execution` on this machine."""

    device: torch.device
    precision: torch.dtype
    channels_last: bool
    kernels: Kernels
    compile: Literal["off", "on", "graphs"]
    checkpointing: bool
    optimizer: OptimizerForm
    bucket_mib: int
    threads: int
    prefetch: int
    hw_decoder_load: float
    preallocate: bool
    affinity: bool

    @property
    def input_dtype(self) -> str:
        """Of the crops: half the bytes where the network rounds them anyway."""
        half = self.device.type == "cuda" and self.precision != torch.float32
        return "float16" if half else "float32"

    def __str__(self) -> str:
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        return f"{where}, {str(self.precision).removeprefix('torch.')}, {self.threads} data threads"

    def autocast(self) -> contextlib.AbstractContextManager:
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
        fit_for(self.kernels, self.checkpointing, method)
        for network in method.networks() if self.compile != "off" else ():
            norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            if norms and self.checkpointing:
                raise UserError(
                    "execution.checkpointing does not go with compilation where a network has BatchNorm, whose running "
                    "statistics would change between a forward pass and its repetition: add --execution.compile off"
                )
            if any(isinstance(m, nn.SyncBatchNorm) for m in norms):
                continue  # asks every rank's count at every layer, which cuts the graph
            # One graph for each crop size; drop path draws what it would draw uncompiled (fallback_random).
            options = {"fallback_random": True, "triton.cudagraphs": self.compile == "graphs"}
            network.compile(fullgraph=True, dynamic=False, options=options)
        return method

    def place(self, module: nn.Module) -> nn.Module:
        """Move to the device; BatchNorm shares its statistics over the ranks."""
        if distributed.world_size() > 1:
            released = self.kernels == "released" and self.device.type == "cuda"  # torch's knows GPUs only
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module) if released else share_statistics(module)
        return module.to(
            self.device, memory_format=torch.channels_last if self.channels_last else torch.preserve_format
        )

    def parallel(self, module: nn.Module) -> nn.Module:
        """DDP over all ranks; the module itself where there is one process."""
        if distributed.world_size() == 1:
            return module
        # Buffers need no broadcast: BatchNorm is synchronised or per rank, centres are equal by construction.
        name = "forward_sync_buffers"  # since torch 2.13; it was called broadcast_buffers before
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = {name if name in known else "broadcast_buffers": False}
        return DistributedDataParallel(
            module, gradient_as_bucket_view=True, static_graph=True, bucket_cap_mb=self.bucket_mib, **buffers
        )


def fit_for(kernels: Kernels, checkpointing: bool, method: Method) -> None:
    """Make a method's networks spell attention out as the released code does, or recompute their activations."""
    for network in method.networks():
        if checkpointing:
            network.set_grad_checkpointing()
        if kernels == "released":
            spell_attention_out(network)


def spell_attention_out(network: nn.Module) -> None:
    """Make a timm ViT write its attention matrices out, as the released code does."""
    for module in network.modules():
        if hasattr(module, "fused_attn"):  # timm's choice of scaled_dot_product_attention
            module.fused_attn = False


def _cpu_multiplies_bf16() -> bool:
    """Whether this CPU has AMX, without which bf16 is slower than fp32."""
    return hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def accelerator(execution: Execution) -> Accelerator:
    """Choose the device and join the process group.

    Raises:
        UserError: a GPU is asked for and there is none.
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
    precision = execution.precision
    if precision == "auto":
        precision = "bf16" if kind == "cuda" or _cpu_multiplies_bf16() else "fp32"
    threads = execution.threads or max(1, len(os.sched_getaffinity(0)) // local_processes)
    return Accelerator(
        device=device,
        precision=PRECISIONS[precision],
        channels_last=execution.channels_last,
        kernels=execution.kernels,
        compile=("on" if kind == "cuda" else "off") if execution.compile == "auto" else execution.compile,
        checkpointing=execution.checkpointing,
        optimizer=execution.optimizer,
        bucket_mib=execution.bucket_mib,
        threads=threads,
        prefetch=execution.prefetch,
        hw_decoder_load=execution.hw_decoder_load,
        preallocate=execution.preallocate,
        affinity=execution.affinity,
    )


def settings(machine: Accelerator) -> dict[str, Any]:
    """What a run's records say about how it is computed: hardware, versions and the flags of torch's libraries."""
    packages = ("torch", "triton", "nvidia-dali-cuda120", "nvidia-dali-cuda130")
    installed = {d.metadata["Name"]: d.version for name in packages for d in distributions(name=name)}
    flags = {field.name: getattr(machine, field.name) for field in fields(machine)}
    return {
        **{name: value if isinstance(value, (bool, int, float)) else str(value) for name, value in flags.items()},
        "hardware": str(machine),
        "processes": distributed.world_size(),
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda, **installed},
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
    }
