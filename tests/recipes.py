"""Recipes small enough for tests on two cores."""

from dataclasses import replace

from clever_fast.methods import Clever, Ddcl, Dino, SimSiam
from clever_fast.models import BACKBONES, Backbone
from clever_fast.models.vit import vit
from clever_fast.options import Recipe
from clever_fast.pipelines.policies import CAUG_PLUS, MOCO_CAUG_PLUS

HEADS = {"prototypes": 64, "hidden": 32, "bottleneck": 16, "teacher_momentum": 0.9}
METHODS = {"dino": Dino(**HEADS), "clever": Clever(**HEADS, ef_prototypes=48)}
SIAMESE = {"simsiam": SimSiam(width=32, bottleneck=8), "ddcl": Ddcl(width=32, bottleneck=8)}


def vit_test(drop_path: float):
    return vit(48, 2, 2, drop_path, patch_size=8, image_size=32)


VIT = Backbone("vit_test", vit_test)


def small(method: str = "clever", **changes) -> Recipe:
    """A ResNet with drop path and BatchNorm on, every augmentation, three epochs of three steps on 24 images."""
    recipe = Recipe(
        method=METHODS[method],
        backbone=BACKBONES["resnet10_small"],
        drop_path=0.2,
        policy=CAUG_PLUS,
        global_size=32,
        local_size=16,
        local_crops=2,
        epochs=3,
        batch_size=8,
        base_lr=0.02,
        warmup_epochs=1,
    )
    return replace(recipe, **changes)


def siamese(method: str = "ddcl", **changes) -> Recipe:
    """SimSiam or DDCL with the released schedule at that size: two epochs of warm-up, everything by the epoch."""
    recipe = small(
        method="clever",
        policy=MOCO_CAUG_PLUS,
        local_crops=0,
        optimizer="sgd",
        min_lr=0.0,
        warmup_epochs=2,
        lr_per_epoch=True,
        weight_decay=1e-4,
        weight_decay_end=1e-4,
        decay_vectors=True,
        clip_grad=0.0,
    )
    return replace(recipe, method=SIAMESE[method], **changes)


def tiny(method: str) -> Recipe:
    return siamese(method) if method in SIAMESE else small(method)


def small_vit(method: str) -> Recipe:
    """No BatchNorm and no drop path, so the sharing of a batch changes nothing; with SGD rounding stays rounding."""
    return small(method, backbone=VIT, drop_path=0.0, optimizer="sgd", base_lr=0.2, warmup_epochs=0, epochs=2)
