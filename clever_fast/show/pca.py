"""Patch features as colours."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from clever_fast.accelerator import Accelerator
from clever_fast.models.dense import dense_features
from clever_fast.ops import selection
from clever_fast.pipelines.contact_sheet import FAINT, Tile, sheet_of
from clever_fast.show.images import Picture, map_image

COLOURS = 3
CLIPPED = 0.02  # share of the values at either end that take the darkest and the brightest colour


@torch.no_grad()
def pca_sheet(
    encoder: nn.Module,
    parts: dict[str, slice],
    pictures: Sequence[Picture],
    accelerator: Accelerator,
    origin: str,
) -> Image.Image:
    """Rows of images; columns: the image, and the components of each part of its patch features as red, green, blue.

    The components are those of all patches of all images together, so equal colours in a column mean alike features.
    """
    encoder, maps = accelerator.place(encoder).eval(), []
    for picture in pictures:
        with accelerator.autocast(), selection.use(accelerator.execution.kernels):
            features = dense_features(encoder, picture.tensor().to(accelerator.device))[0]
        maps.append(features.float().cpu().permute(1, 2, 0))  # (h, w, D)
    columns = [components_as_colours([m[..., part] for m in maps]) for part in parts.values()]
    rows = []
    for picture, *colours in zip(pictures, *columns, strict=True):
        tiles = [
            Tile(map_image(c.numpy(), picture.image), (f"{c.shape[0]} x {c.shape[1]} patches",), FAINT) for c in colours
        ]
        rows.append([picture.tile(), *tiles])
    names = {i: f"{name}, {_width(parts[name], maps)} channels" for i, name in enumerate(parts, start=1)}
    return sheet_of(
        rows,
        title="Patch features",
        subtitle=f"first {COLOURS} principal components of all images; {origin}",
        columns={0: "image", **names},
        after=(0,),
    )


def components_as_colours(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps (h_i, w_i, D) -> (h_i, w_i, 3) in 0 to 1: the first principal components of all places together.

    Each component runs from its 2nd to its 98th percentile; its sign is such that its largest weight is positive.
    """
    places = torch.cat([m.flatten(0, 1) for m in maps]).double()
    mean = places.mean(0)
    _, directions = torch.linalg.eigh((places - mean).T @ (places - mean))  # ascending
    axes = directions[:, -COLOURS:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    low, high = torch.quantile(_thinned((places - mean) @ axes), torch.tensor([CLIPPED, 1 - CLIPPED]).double(), dim=0)
    return [(((m.double() - mean) @ axes - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).float() for m in maps]


def _thinned(values: Tensor, most: int = 2**20) -> Tensor:
    """Every so many-th row; torch's quantile takes 2^24 values at most."""
    return values[:: -(-len(values) // most)]


def _width(part: slice, maps: Sequence[Tensor]) -> int:
    return len(range(*part.indices(maps[0].shape[-1])))
