"""One process or many: the same calls work in both."""

import os
import subprocess

import torch
import torch.distributed as dist

from clever_fast.errors import UserError


def adopt_slurm_variables() -> None:
    """Under srun, set torchrun's variables (RANK, LOCAL_RANK, WORLD_SIZE, ...) from SLURM's."""
    env = os.environ
    if "RANK" in env or "SLURM_PROCID" not in env or int(env.get("SLURM_NTASKS", "1")) == 1:
        return
    if "MASTER_ADDR" not in env:
        env["MASTER_ADDR"] = _first_slurm_host(env.get("SLURM_STEP_NODELIST", env.get("SLURM_JOB_NODELIST", "")))
    env.setdefault("MASTER_PORT", str(20000 + int(env.get("SLURM_JOB_ID", "0")) % 20000))
    env.update(RANK=env["SLURM_PROCID"], LOCAL_RANK=env["SLURM_LOCALID"], WORLD_SIZE=env["SLURM_NTASKS"])
    if per_node := env.get("SLURM_NTASKS_PER_NODE"):
        env["LOCAL_WORLD_SIZE"] = per_node


def _first_slurm_host(node_list: str) -> str:
    try:
        return subprocess.run(
            ["scontrol", "show", "hostnames", node_list], check=True, capture_output=True, text=True
        ).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise UserError(
            f"cannot resolve the SLURM node list {node_list!r}: set MASTER_ADDR to the first node"
        ) from None


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    return rank() == 0


def start(device: torch.device) -> None:
    """Join the process group if the environment announces more than one process: NCCL with GPUs, gloo without.

    The CPU always has gloo, so that small host-side messages need no GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_peer(error: RuntimeError) -> bool:
    """Whether an error of a collective says that another process is gone."""
    said = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused", "Timed out waiting")
    return isinstance(error, dist.DistError) or any(words in str(error) for words in said)


def mean(tensor: torch.Tensor) -> torch.Tensor:
    """The mean over all ranks, in place; the tensor itself where there is one process."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return tensor
