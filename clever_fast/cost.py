"""What a step costs in multiplications and additions, counted from the networks themselves."""

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from clever_fast.methods import Clever, Dino
from clever_fast.models import Backbone
from clever_fast.recipe import Recipe

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
    """GFLOP of one image's step: the teacher forward on its crops, the student forward and backward on all, heads too.

    A multiplication and an addition count as two; the backward pass as twice the forward.
    """
    crops = ((2, recipe.global_size), (recipe.local_crops, recipe.local_size))
    return _gflop(recipe.method, recipe.backbone, tuple(crop for crop in crops if crop[0]))


@cache
def _gflop(config: Dino | Clever, backbone: Backbone, crops: tuple[tuple[int, int], ...]) -> float:
    with torch.device("meta"), torch.no_grad():
        method = config.build(backbone, 0.0).eval()
        images = [torch.empty(count, 3, size, size) for count, size in crops]
        with FlopCounterMode(display=False) as teacher:
            method.teacher(images[0])
        with FlopCounterMode(display=False) as student:
            method.student(*images)
    return (teacher.get_total_flops() + 3 * student.get_total_flops()) / 1e9
