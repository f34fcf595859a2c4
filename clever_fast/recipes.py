"""The recipes by name. Each is a value; a new one is `dataclasses.replace(other, ...)` and a line of the table."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clever_fast.errors import UserError, did_you_mean, find
from clever_fast.methods import Clever, Ddcl, Dino, SimSiam
from clever_fast.models import BACKBONES, find_backbone
from clever_fast.options import Recipe
from clever_fast.pipelines.policies import BAUG, CAUG, CAUG_PLUS, MOCO_BAUG, MOCO_CAUG_PLUS, POLICIES

NETWORKS = {
    "resnet18": BACKBONES["resnet18"],
    "resnet50": BACKBONES["resnet50"],
    "vitt16": BACKBONES["vit_tiny_patch16_224"],
    "vits16": BACKBONES["vit_small_patch16_224"],
    "vitb16": BACKBONES["vit_base_patch16_224"],
    "vmambat": BACKBONES["vmamba_tiny"],
    "vmambas": BACKBONES["vmamba_small"],
    "vmambab": BACKBONES["vmamba_base"],
}
METHODS = {"dino": Dino(), "clever": Clever()}
# 200: the released script's and the published tables' of many networks; 500: the paper's other tables on IN-100
EPOCHS = {"in100": 200, "in100_500": 500, "in1k": 100}

RECIPES: dict[str, Recipe] = {
    f"{method}_{network}_{data}": Recipe(
        method=METHODS[method],
        backbone=NETWORKS[network],
        drop_path=NETWORKS[network].drop_path,
        policy=CAUG,
        epochs=epochs,
    )
    for data, epochs in EPOCHS.items()
    for method in METHODS
    for network in NETWORKS
}


# With the published centre momentum 0.9 and temperature 0.04, runs of a few thousand steps ended in uniform outputs.
SHORT = {
    "prototypes": 512,
    "hidden": 512,
    "bottleneck": 128,
    "teacher_momentum": 0.98,
    "center_momentum": 0.3,
    "teacher_temp": 0.02,
    "warmup_teacher_temp": 0.02,
}


def recipe(name: str, **changes: Any) -> Recipe:
    """The recipe of this name with some fields changed.

    Args:
        name: one of `RECIPES`, such as "clever_vits16_in100"; `clever-fast recipes` lists them.
        changes: fields of `Recipe` by name. `method` may be a dictionary of the method's own fields, `backbone` and
            `policy` may be names.

    Raises:
        UserError: no recipe, field, backbone or policy has that name, or a value is out of range.
    """
    found = find_recipe(name)
    try:
        if isinstance(changes.get("method"), Mapping):
            changes["method"] = replace(found.method, **changes["method"])
        if isinstance(changes.get("backbone"), str):
            changes["backbone"] = find_backbone(changes["backbone"])
        if isinstance(changes.get("policy"), str):
            changes["policy"] = find("policy", changes["policy"], POLICIES)
        return replace(found, **changes)
    except TypeError as error:
        raise UserError(f"recipe {name}: {error}") from None


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        UserError: none has; names the nearest.
    """
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES)
        raise UserError(f"no recipe is called {name!r}{hint}; `clever-fast recipes` lists them all")
    return RECIPES[name]


def paper_sgd(recipe: Recipe) -> Recipe:
    """The optimizer as the paper prints it; the published numbers come from the released code's AdamW."""
    return replace(recipe, optimizer="sgd", base_lr=1e-3)


def cifar10(recipe: Recipe) -> Recipe:
    """32 px images: the small stem, small crops and head, and a teacher that follows within a short run."""
    method = replace(recipe.method, prototypes=4096, hidden=1024, teacher_momentum=0.99)
    return replace(
        recipe,
        method=method,
        backbone=BACKBONES["resnet18_small"],
        global_size=32,
        local_size=16,
        local_crops=4,
        batch_size=256,
        epochs=200,
    )


def cifar10_small(recipe: Recipe) -> Recipe:
    """CIFAR-10 in ten minutes on one CPU core; small crops stand in for the local ones (benchmarks/LOG.md)."""
    return replace(
        recipe,
        method=replace(recipe.method, **SHORT),
        backbone=BACKBONES["resnet10_small"],
        policy=BAUG,
        local_crops=0,
        global_scale=0.1,
        max_blur=0.5,
        batch_size=64,
        base_lr=8e-3,
        warmup_epochs=1,
        weight_decay_end=0.1,
        epochs=4,
    )


def demo(recipe: Recipe) -> Recipe:
    """A few minutes on two CPU cores."""
    short = cifar10_small(cifar10(recipe))
    return replace(short, policy=CAUG_PLUS, global_size=48, global_scale=0.4, epochs=16)


def vmamba_demo(recipe: Recipe) -> Recipe:
    """The same with a small VMamba, which wants smaller steps, a slower teacher and upright images (LOG.md)."""
    return replace(
        recipe,
        method=replace(recipe.method, teacher_momentum=0.99),
        backbone=BACKBONES["vmamba_mini"],
        drop_path=0.1,
        policy=BAUG,
        global_scale=0.2,
        base_lr=1e-3,
        epochs=16,
    )


def simsiam(network: str, epochs: int) -> Recipe:
    """SimSiam's released settings with the paper's augmentations; here its epochs of warm-up are counted too."""
    return Recipe(
        method=SimSiam(hidden=512 if network == "resnet18" else None),
        backbone=NETWORKS[network],
        policy=MOCO_CAUG_PLUS,
        global_scale=0.2,
        local_crops=0,
        epochs=30 + epochs,
        warmup_epochs=30,
        batch_size=256,
        optimizer="sgd",
        base_lr=0.05,
        min_lr=0.0,
        lr_per_epoch=True,
        weight_decay=1e-4,
        weight_decay_end=1e-4,
        decay_vectors=True,
        clip_grad=0.0,
    )


def ddcl(recipe: Recipe, preg_weight: float) -> Recipe:
    """The same with DDCL, as first published or with PReg."""
    return replace(recipe, method=Ddcl(preg_weight=preg_weight, hidden=recipe.method.hidden))


def simsiam_cifar10_small(recipe: Recipe) -> Recipe:
    """CIFAR-10 in minutes on one CPU core, by the step as there are few epochs; not shown to learn yet (LOG.md)."""
    return replace(
        recipe,
        method=replace(recipe.method, width=512, bottleneck=128),
        backbone=BACKBONES["resnet10_small"],
        policy=MOCO_BAUG,
        global_size=32,
        max_blur=0.5,
        epochs=4,
        warmup_epochs=0,
        lr_per_epoch=False,
        batch_size=64,
        base_lr=0.03,
    )


for method in METHODS:
    RECIPES[f"{method}_vits16_in100_paper_sgd"] = paper_sgd(RECIPES[f"{method}_vits16_in100"])
    RECIPES[f"{method}_resnet18_cifar10"] = cifar10(RECIPES[f"{method}_resnet18_in100"])
    RECIPES[f"{method}_resnet10_cifar10"] = cifar10_small(RECIPES[f"{method}_resnet18_cifar10"])
RECIPES["clever_demo"] = demo(RECIPES["clever_resnet18_in100"])
for data, epochs in {"in100": 500, "in1k": 100}.items():
    for network in ("resnet18", "resnet50"):
        name = f"{network}_{data}"
        RECIPES[f"simsiam_{name}"] = simsiam(network, epochs)
        RECIPES[f"ddcl_{name}"] = ddcl(RECIPES[f"simsiam_{name}"], 0.0)
        RECIPES[f"ddcl_{name}_preg"] = ddcl(RECIPES[f"simsiam_{name}"], 0.001)
for name in ("simsiam_{}", "ddcl_{}", "ddcl_{}_preg"):
    small = simsiam_cifar10_small(RECIPES[name.format("resnet18_in100")])
    RECIPES[name.format("resnet10_cifar10")] = small
RECIPES["clever_vmamba_demo"] = vmamba_demo(RECIPES["clever_demo"])
