"""What the class token of a ViT attends to."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import nn

from clever_fast.accelerator import Accelerator
from clever_fast.models.dense import class_attention
from clever_fast.pipelines.contact_sheet import Tile, sheet_of
from clever_fast.show.images import Picture, map_image


@torch.no_grad()
def attention_sheet(
    encoder: nn.Module, pictures: Sequence[Picture], accelerator: Accelerator, origin: str
) -> Image.Image:
    """Rows of images; columns: the image, its attention in the last block averaged over the heads, and each head's.

    Each map runs from its own smallest to its own largest value, the shares of attention that stand under it.
    Source: DINO (Caron et al. 2021), figure 1.
    """
    encoder, rows = accelerator.place(encoder).eval(), []
    for picture in pictures:
        with accelerator.autocast():
            heads = class_attention(encoder, picture.tensor().to(accelerator.device))[0].cpu()
        maps = [("mean", heads.mean(0)), *((f"head {i}", head) for i, head in enumerate(heads, start=1))]
        rows.append([picture.tile(), *(_tile(name, values, picture.image) for name, values in maps)])
    return sheet_of(
        rows,
        title="Attention of the class token",
        subtitle=f"last block; {origin}",
        columns={0: "image", 1: "mean of the heads", 2: "heads"},
        after=(0, 1),
    )


def _tile(name: str, values: torch.Tensor, image: Image.Image) -> Tile:
    h, w = values.shape
    low, high = values.min(), values.max()
    text = f"{h} x {w}, {low:.2%} to {high:.2%}"
    return Tile(map_image(((values - low) / (high - low).clamp_min(1e-12)).numpy(), image), (name, text))
