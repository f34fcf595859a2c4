"""What a step costs in multiplications and additions, counted from the networks themselves."""

from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

import clever_fast.ops.flops  # noqa: F401  so that the scans are counted
from clever_fast.methods import Batch, MethodConfig, Progress
from clever_fast.models import Backbone
from clever_fast.options import Recipe

IMAGES = {"in100": 126_689, "in1k": 1_281_167, "cifar10": 50_000}
# bf16. A100, of 40 or 80 GB, by datasheet; H200, as a large product reaches.
PEAK_TFLOPS = {"A100": 312.0, "H200": 790.0}
PUBLISHED = 251.0  # images/s per A100 of the paper's run: ViT-S, 3.5 h for 100 epochs of IN-100 on four


@dataclass(frozen=True)
class Share:
    """Of a GPU's bf16 peak, what a step of a family of networks is expected to reach, and why."""

    low: float
    high: float
    source: str


SHARES = {
    "resnet": Share(
        0.15,
        0.2,
        "memory limits it: NVIDIA's ResNet-50 v1.5 (DeepLearningExamples, PyTorch, AMP) trains about 2,470 images/s "
        "on an A100, 20 % of its peak",
    ),
    "vit": Share(
        0.3,
        0.4,
        "assumed: 40 % for transformers as wide as ViT-B on an A100, less for narrower ones",
    ),
    "vmamba": Share(
        0.06,
        0.15,
        "of all but the scans: 6 % is what remains of VMamba-T's own 571 images/s on an A100 when the 0.25 ms counted "
        "for its own scan of a crop are taken off, 15 % a ResNet's",
    ),
}

# Milliseconds of the scans in one image's step at 2x224 + 8x96 px: the largest of instructions, memory and latency of
# each launch, counted from machine code (benchmarks/scan_counts.py). Not measured.
SCAN_MS = {
    "A100": {"vmamba_tiny": 0.352, "vmamba_small": 0.548, "vmamba_base": 0.778},
    "H200": {"vmamba_tiny": 0.206, "vmamba_small": 0.334, "vmamba_base": 0.454},
}
SCAN_SOURCE = "instructions, bytes and latencies of the scan's machine code (benchmarks/scan_counts.py)"


def share_of(backbone: str) -> Share:
    """The share of the family of a backbone, by its name; the lowest of the plain ones for other families."""
    return next((share for family, share in SHARES.items() if backbone.startswith(family)), SHARES["resnet"])


def predicted_seconds(gflop: float, peak_tflops: float, share: float, scan_ms: float = 0.0) -> float:
    """Of one image's step: GFLOP over a share of the peak, and the scans. A prediction, never a measurement."""
    return gflop / (share * peak_tflops * 1e3) + scan_ms / 1e3


def predicted_rates(recipe: Recipe, gpu: str) -> tuple[float, float]:
    """Images/s that a well-run step is expected to reach, at least and at most."""
    share, scan = share_of(recipe.backbone.name), SCAN_MS[gpu].get(recipe.backbone.name, 0.0)
    gflop = gflop_per_image(recipe)
    low, high = (1 / predicted_seconds(gflop, PEAK_TFLOPS[gpu], part, scan) for part in (share.low, share.high))
    return low, high


def formula() -> str:
    """How the predictions come about, in words."""
    peaks = ", ".join(f"{gpu} {peak:.0f} TFLOP/s" for gpu, peak in PEAK_TFLOPS.items())
    shares = "; ".join(f"{name} {s.low:.0%} to {s.high:.0%} ({s.source})" for name, s in SHARES.items())
    return (
        f"Predicted: an image's step takes (GFLOP an image) / (share × peak), and VMamba's the time of its scans "
        f"beside it, from {SCAN_SOURCE}. bf16 peaks: {peaks}. Shares: {shares}."
    )


def gflop_per_image(recipe: Recipe) -> float:
    """GFLOP of one image's step: the forward passes on all its crops, and the backward pass of what is trained.

    A multiplication and an addition count as two; the backward pass as twice the forward.
    """
    return _gflop(recipe.method, recipe.backbone, recipe.global_size, recipe.local_crops, recipe.local_size)


@cache
def _gflop(config: MethodConfig, backbone: Backbone, global_size: int, local_crops: int, local_size: int) -> float:
    with torch.device("meta"), torch.no_grad():
        method = config.build(backbone, 0.0).eval()
        local = torch.empty(local_crops, 3, local_size, local_size) if local_crops else None
        batch = Batch(torch.empty(2, 3, global_size, global_size), local, torch.zeros(1))
        with FlopCounterMode(display=False) as counter:
            method(batch, Progress(0, 1, 1))
    frozen = [name for name, net in method.named_children() if not any(p.requires_grad for p in net.parameters())]
    counts, total = counter.get_flop_counts(), counter.get_total_flops()
    forward_only = sum(sum(counts[f"{type(method).__name__}.{name}"].values()) for name in frozen)  # a teacher's
    return (forward_only + 3 * (total - forward_only)) / 1e9
