"""`clever-fast preview`: see what the augmentations do."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from clever_fast.errors import UserError


def preview(
    data: Path,
    out: Path = Path("preview.png"),
    *,
    recipe: str | None = None,
    policy: Literal["all", "baug", "caug", "caug_plus", "moco_baug", "moco_caug", "moco_caug_plus"] | None = None,
    images: int = 4,
    seed: int = 0,
    epoch: int = 0,
    classes: Path | None = None,
) -> None:
    """Draws a contact sheet: rows of images, columns of views, with the drawn parameters under each crop.

    The images and crops are those that a run with this seed sees first in this epoch.

    Args:
        data: Folder with one folder of images per class, or with train/ that holds them.
        out: PNG file to write.
        recipe: The recipe whose policy and crop sizes are drawn; with --policy, that policy at the recipe's sizes.
        policy: One augmentation policy, or all; without it the recipe's, or all where no recipe is named.
        images: Number of images.
        seed: The run's seed.
        epoch: The run's epoch, from 0.
        classes: Text file with one class folder per line, to take only these.
    """
    from clever_fast.pipelines.manifest import open_manifest
    from clever_fast.pipelines.policies import POLICIES
    from clever_fast.pipelines.preview import contact_sheet

    if images < 1:
        raise UserError(f"--images {images} is too few: give at least 1")
    manifest = open_manifest(data, classes=classes, progress=True)
    names = POLICIES if policy == "all" or (policy is None and recipe is None) else [policy] if policy else []
    policies = [POLICIES[name] for name in names]
    if recipe is not None:
        from clever_fast.recipes import find_recipe

        chosen = find_recipe(recipe)
        policies = [replace(chosen, policy=p).views for p in policies] or [chosen.views]
    sheet = contact_sheet(manifest, policies, images=images, seed=seed, epoch=epoch)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
    except (OSError, ValueError) as error:  # ValueError: an unknown ending
        raise UserError(f"cannot write {out}: {error}") from None
    print(f"{out}: {sheet.width} x {sheet.height} pixels")
