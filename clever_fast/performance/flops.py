"""What a step costs in multiplications and additions, counted from the networks themselves."""

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

import clever_fast.ops.flops  # noqa: F401  so that the scans are counted
from clever_fast.methods import Batch, MethodConfig, Progress
from clever_fast.models import Backbone
from clever_fast.options import Recipe

IMAGES = {"in100": 126_689, "in1k": 1_281_167, "cifar10": 50_000}
PEAK_TFLOPS = {
    "A100": 312.0,
    "H200": 790.0,
}  # bf16: A100, of 40 or 80 GB, by datasheet; H200, as a large product reaches
GOOD_SHARE = (0.4, 0.5)  # of the peak, which a well-run step is expected to reach
PUBLISHED = 251.0  # images/s per A100 of the paper's run: ViT-S, 3.5 h for 100 epochs of IN-100 on four


def predicted_rate(gflop: float, gpu: str, share: float) -> float:
    """Images/s at a share of a GPU's peak: share x peak / GFLOP an image. A prediction, never a measurement."""
    return share * PEAK_TFLOPS[gpu] * 1e3 / gflop


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
