"""What a step costs in multiplications and additions, counted from the networks themselves."""

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from clever_fast.methods import Batch, MethodConfig, Progress
from clever_fast.models import Backbone
from clever_fast.recipe import Recipe

IMAGES = {"in100": 126_689, "in1k": 1_281_167, "cifar10": 50_000}


def gflop_per_image(recipe: Recipe) -> float:
    """GFLOP of one image's step, forward and backward, teacher and heads too; a multiply-add counts as two."""
    return _gflop(recipe.method, recipe.backbone, recipe.global_size, recipe.local_crops, recipe.local_size)


@cache
def _gflop(config: MethodConfig, backbone: Backbone, global_size: int, local_crops: int, local_size: int) -> float:
    with torch.device("meta"):
        method = config.build(backbone, 0.0).eval()
        local = torch.empty(local_crops, 3, local_size, local_size) if local_crops else None
        batch = Batch(torch.empty(2, 3, global_size, global_size), local, torch.zeros(1))
        with FlopCounterMode(display=False) as counter:
            method(batch, Progress(0, 1, 1))["loss"].backward()
    return counter.get_total_flops() / 1e9
