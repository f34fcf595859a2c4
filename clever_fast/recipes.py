"""The recipes by name: functions that make them, and one table of all. A new one is a line of the table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clever_fast.errors import UserError, did_you_mean, find
from clever_fast.methods import Clever, Ddcl, Dino, MethodConfig, SimSiam
from clever_fast.models import BACKBONES, find_backbone
from clever_fast.options import Recipe
from clever_fast.pipelines.policies import BAUG, CAUG, CAUG_PLUS, MOCO_BAUG, MOCO_CAUG_PLUS, POLICIES

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


def changed(method: MethodConfig, **fields: Any) -> MethodConfig:
    """A method of the same class with other values."""
    return replace(method, **fields)


def imagenet(method: MethodConfig, backbone: str, epochs: int) -> Recipe:
    """The released settings of DINO and CLeVER: CAUG, batches of 512, AdamW."""
    network = BACKBONES[backbone]
    return Recipe(method=method, backbone=network, drop_path=network.drop_path, policy=CAUG, epochs=epochs)


def paper_sgd(recipe: Recipe) -> Recipe:
    """The optimizer as the paper prints it; the published numbers come from the released code's AdamW."""
    return replace(recipe, optimizer="sgd", base_lr=1e-3)


def cifar10(recipe: Recipe) -> Recipe:
    """32 px images: the small stem, small crops and head, and a teacher that follows within a short run."""
    method = changed(recipe.method, prototypes=4096, hidden=1024, teacher_momentum=0.99)
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
        method=changed(recipe.method, **SHORT),
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
        method=changed(recipe.method, teacher_momentum=0.99),
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
        backbone=BACKBONES[network],
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
    assert isinstance(recipe.method, SimSiam)
    return replace(recipe, method=Ddcl(preg_weight=preg_weight, hidden=recipe.method.hidden))


def simsiam_cifar10_small(recipe: Recipe) -> Recipe:
    """CIFAR-10 in minutes on one CPU core, by the step as there are few epochs; not shown to learn yet (LOG.md)."""
    return replace(
        recipe,
        method=changed(recipe.method, width=512, bottleneck=128),
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


@dataclass(frozen=True)
class Entry:
    """A recipe of the table, with what it is for.

    Args:
        recipe: the recipe itself.
        data: the data set that it is made for: in100, in1k, cifar10, or synthetic images.
        gflop: GFLOP of one image's step, as `performance.flops` counts them.
        published: linear accuracy in % on IN-100, on images as they are and under CJ+Ro, as the papers print it.
    """

    recipe: Recipe
    data: str
    gflop: float
    published: tuple[float, float] | None = None


CLEVER_CIFAR10, DINO_CIFAR10 = (cifar10(imagenet(method, "resnet18", 200)) for method in (Clever(), Dino()))
CLEVER_DEMO = demo(CLEVER_CIFAR10)
SIMSIAM = simsiam("resnet18", 500)

CATALOGUE: dict[str, Entry] = {
    # ImageNet-100, 200 epochs as in the released script and the paper's tables of networks
    "dino_resnet18_in100": Entry(imagenet(Dino(), "resnet18", 200), "in100", 46.45, (71.5, 68.7)),
    "dino_resnet50_in100": Entry(imagenet(Dino(), "resnet50", 200), "in100", 103.07, (78.4, 76.4)),
    "dino_vitt16_in100": Entry(imagenet(Dino(), "vit_tiny_patch16_224", 200), "in100", 31.44, (66.2, 62.6)),
    "dino_vits16_in100": Entry(imagenet(Dino(), "vit_small_patch16_224", 200), "in100", 113.83, (73.2, 71.0)),
    "dino_vitb16_in100": Entry(imagenet(Dino(), "vit_base_patch16_224", 200), "in100", 435.56),
    "dino_vmambat_in100": Entry(imagenet(Dino(), "vmamba_tiny", 200), "in100", 122.07, (80.9, 79.5)),
    "dino_vmambas_in100": Entry(imagenet(Dino(), "vmamba_small", 200), "in100", 213.49),
    "dino_vmambab_in100": Entry(imagenet(Dino(), "vmamba_base", 200), "in100", 376.96),
    "clever_resnet18_in100": Entry(imagenet(Clever(), "resnet18", 200), "in100", 47.82, (74.2, 71.3)),
    "clever_resnet50_in100": Entry(imagenet(Clever(), "resnet50", 200), "in100", 104.45, (79.1, 77.7)),
    "clever_vitt16_in100": Entry(imagenet(Clever(), "vit_tiny_patch16_224", 200), "in100", 32.82, (68.7, 66.0)),
    "clever_vits16_in100": Entry(imagenet(Clever(), "vit_small_patch16_224", 200), "in100", 115.2, (75.7, 73.6)),
    "clever_vitb16_in100": Entry(imagenet(Clever(), "vit_base_patch16_224", 200), "in100", 436.94),
    "clever_vmambat_in100": Entry(imagenet(Clever(), "vmamba_tiny", 200), "in100", 123.44, (83.0, 81.1)),
    "clever_vmambas_in100": Entry(imagenet(Clever(), "vmamba_small", 200), "in100", 214.87),
    "clever_vmambab_in100": Entry(imagenet(Clever(), "vmamba_base", 200), "in100", 378.33),
    # ImageNet-100, 500 epochs as in the paper's other tables
    "dino_resnet18_in100_500": Entry(imagenet(Dino(), "resnet18", 500), "in100", 46.45),
    "dino_resnet50_in100_500": Entry(imagenet(Dino(), "resnet50", 500), "in100", 103.07),
    "dino_vitt16_in100_500": Entry(imagenet(Dino(), "vit_tiny_patch16_224", 500), "in100", 31.44),
    "dino_vits16_in100_500": Entry(imagenet(Dino(), "vit_small_patch16_224", 500), "in100", 113.83),
    "dino_vitb16_in100_500": Entry(imagenet(Dino(), "vit_base_patch16_224", 500), "in100", 435.56),
    "dino_vmambat_in100_500": Entry(imagenet(Dino(), "vmamba_tiny", 500), "in100", 122.07),
    "dino_vmambas_in100_500": Entry(imagenet(Dino(), "vmamba_small", 500), "in100", 213.49),
    "dino_vmambab_in100_500": Entry(imagenet(Dino(), "vmamba_base", 500), "in100", 376.96),
    "clever_resnet18_in100_500": Entry(imagenet(Clever(), "resnet18", 500), "in100", 47.82),
    "clever_resnet50_in100_500": Entry(imagenet(Clever(), "resnet50", 500), "in100", 104.45),
    "clever_vitt16_in100_500": Entry(imagenet(Clever(), "vit_tiny_patch16_224", 500), "in100", 32.82),
    "clever_vits16_in100_500": Entry(imagenet(Clever(), "vit_small_patch16_224", 500), "in100", 115.2),
    "clever_vitb16_in100_500": Entry(imagenet(Clever(), "vit_base_patch16_224", 500), "in100", 436.94),
    "clever_vmambat_in100_500": Entry(imagenet(Clever(), "vmamba_tiny", 500), "in100", 123.44),
    "clever_vmambas_in100_500": Entry(imagenet(Clever(), "vmamba_small", 500), "in100", 214.87),
    "clever_vmambab_in100_500": Entry(imagenet(Clever(), "vmamba_base", 500), "in100", 378.33),
    # ImageNet-1k, 100 epochs
    "dino_resnet18_in1k": Entry(imagenet(Dino(), "resnet18", 100), "in1k", 46.45),
    "dino_resnet50_in1k": Entry(imagenet(Dino(), "resnet50", 100), "in1k", 103.07),
    "dino_vitt16_in1k": Entry(imagenet(Dino(), "vit_tiny_patch16_224", 100), "in1k", 31.44),
    "dino_vits16_in1k": Entry(imagenet(Dino(), "vit_small_patch16_224", 100), "in1k", 113.83),
    "dino_vitb16_in1k": Entry(imagenet(Dino(), "vit_base_patch16_224", 100), "in1k", 435.56),
    "dino_vmambat_in1k": Entry(imagenet(Dino(), "vmamba_tiny", 100), "in1k", 122.07),
    "dino_vmambas_in1k": Entry(imagenet(Dino(), "vmamba_small", 100), "in1k", 213.49),
    "dino_vmambab_in1k": Entry(imagenet(Dino(), "vmamba_base", 100), "in1k", 376.96),
    "clever_resnet18_in1k": Entry(imagenet(Clever(), "resnet18", 100), "in1k", 47.82),
    "clever_resnet50_in1k": Entry(imagenet(Clever(), "resnet50", 100), "in1k", 104.45),
    "clever_vitt16_in1k": Entry(imagenet(Clever(), "vit_tiny_patch16_224", 100), "in1k", 32.82),
    "clever_vits16_in1k": Entry(imagenet(Clever(), "vit_small_patch16_224", 100), "in1k", 115.2),
    "clever_vitb16_in1k": Entry(imagenet(Clever(), "vit_base_patch16_224", 100), "in1k", 436.94),
    "clever_vmambat_in1k": Entry(imagenet(Clever(), "vmamba_tiny", 100), "in1k", 123.44),
    "clever_vmambas_in1k": Entry(imagenet(Clever(), "vmamba_small", 100), "in1k", 214.87),
    "clever_vmambab_in1k": Entry(imagenet(Clever(), "vmamba_base", 100), "in1k", 378.33),
    # the optimizer as the paper prints it
    "dino_vits16_in100_paper_sgd": Entry(paper_sgd(imagenet(Dino(), "vit_small_patch16_224", 200)), "in100", 113.83),
    "clever_vits16_in100_paper_sgd": Entry(paper_sgd(imagenet(Clever(), "vit_small_patch16_224", 200)), "in100", 115.2),
    # SimSiam and DDCL, with and without PReg; 30 epochs of warm-up are counted
    "simsiam_resnet18_in100": Entry(simsiam("resnet18", 500), "in100", 21.81),
    "ddcl_resnet18_in100": Entry(ddcl(simsiam("resnet18", 500), 0.0), "in100", 21.85),
    "ddcl_resnet18_in100_preg": Entry(ddcl(simsiam("resnet18", 500), 0.001), "in100", 21.85),
    "simsiam_resnet50_in100": Entry(simsiam("resnet50", 500), "in100", 49.22, (78.6, 75.1)),
    "ddcl_resnet50_in100": Entry(ddcl(simsiam("resnet50", 500), 0.0), "in100", 49.35, (78.8, 75.4)),
    "ddcl_resnet50_in100_preg": Entry(ddcl(simsiam("resnet50", 500), 0.001), "in100", 49.35, (79.8, 77.0)),
    "simsiam_resnet18_in1k": Entry(simsiam("resnet18", 100), "in1k", 21.81),
    "ddcl_resnet18_in1k": Entry(ddcl(simsiam("resnet18", 100), 0.0), "in1k", 21.85),
    "ddcl_resnet18_in1k_preg": Entry(ddcl(simsiam("resnet18", 100), 0.001), "in1k", 21.85),
    "simsiam_resnet50_in1k": Entry(simsiam("resnet50", 100), "in1k", 49.22),
    "ddcl_resnet50_in1k": Entry(ddcl(simsiam("resnet50", 100), 0.0), "in1k", 49.35),
    "ddcl_resnet50_in1k_preg": Entry(ddcl(simsiam("resnet50", 100), 0.001), "in1k", 49.35),
    # small images
    "dino_resnet18_cifar10": Entry(DINO_CIFAR10, "cifar10", 12.33),
    "clever_resnet18_cifar10": Entry(CLEVER_CIFAR10, "cifar10", 12.43),
    "dino_resnet10_cifar10": Entry(cifar10_small(DINO_CIFAR10), "cifar10", 0.31),
    "clever_resnet10_cifar10": Entry(cifar10_small(CLEVER_CIFAR10), "cifar10", 0.32),
    "simsiam_resnet10_cifar10": Entry(simsiam_cifar10_small(SIMSIAM), "cifar10", 0.24),
    "ddcl_resnet10_cifar10": Entry(simsiam_cifar10_small(ddcl(SIMSIAM, 0.0)), "cifar10", 0.25),
    "ddcl_resnet10_cifar10_preg": Entry(simsiam_cifar10_small(ddcl(SIMSIAM, 0.001)), "cifar10", 0.25),
    # minutes on two CPU cores
    "clever_demo": Entry(CLEVER_DEMO, "synthetic", 0.70),
    "clever_vmamba_demo": Entry(vmamba_demo(CLEVER_DEMO), "synthetic", 0.13),
}

# one recipe a network, for benchmarks and predictions
NETWORKS = (
    "clever_resnet18_in100",
    "clever_resnet50_in100",
    "clever_vitt16_in100",
    "clever_vits16_in100",
    "clever_vitb16_in100",
    "clever_vmambat_in100",
    "clever_vmambas_in100",
    "clever_vmambab_in100",
)

RECIPES: dict[str, Recipe] = {name: entry.recipe for name, entry in CATALOGUE.items()}


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
            changes["method"] = changed(found.method, **changes["method"])
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
