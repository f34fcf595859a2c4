"""`clever-fast preview`: see what the augmentations do."""

from pathlib import Path
from typing import Literal

from clever_fast.errors import UserError


def preview(
    data: Path,
    out: Path = Path("preview.png"),
    *,
    policy: Literal["all", "baug", "caug", "caug_plus", "moco_baug", "moco_caug", "moco_caug_plus"] = "all",
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
        policy: One augmentation policy, or all.
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
    policies = list(POLICIES.values()) if policy == "all" else [POLICIES[policy]]
    sheet = contact_sheet(manifest, policies, images=images, seed=seed, epoch=epoch)
    try:
        sheet.save(out)
    except (OSError, ValueError) as error:  # ValueError: an unknown ending
        raise UserError(f"cannot write {out}: {error}") from None
    print(f"{out}: {sheet.width} x {sheet.height} pixels")
