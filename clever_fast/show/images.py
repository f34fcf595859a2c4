"""Single images for pictures: read, resized, normalised, named."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clever_fast.pipelines.contact_sheet import Tile
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.reading import read_pixels
from clever_fast.pipelines.views import MEAN, STD

ELONGATED = 8  # times the shorter side; of longer images the middle is seen, or a line of pixels fills the memory
LARGEST = 480  # pixels of the shorter side, where no size is asked for: DINO's for its attention maps


@dataclass(frozen=True)
class Picture:
    image: Image.Image  # RGB, at the size at which the encoder sees it
    lines: tuple[str, ...]  # what to write under it

    def tensor(self) -> Tensor:
        """(1, 3, H, W) float32, normalised."""
        pixels = (np.asarray(self.image, np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]

    def tile(self) -> Tile:
        return Tile(self.image, self.lines)


def read(
    data: bytes, name: str, *, least: int, size: int | None, multiple: int = 1, label: str | None = None
) -> Picture:
    """An image at its own proportions; of one more than 8 times as long as wide, the middle.

    Args:
        data: the encoded image.
        name: of its file.
        least: pixels that the shorter side is enlarged to where it is smaller: what the encoder was trained on.
        size: pixels of the shorter side; None for its own, within `least` and 480.
        multiple: width and height are cut at the right and at the bottom to multiples of this, a ViT's patch.
        label: the name of its class.

    Raises:
        UserError: it cannot be decoded.
    """
    image = Image.fromarray(read_pixels(data, name))
    width, height = image.size
    image = middle(image, ELONGATED)
    cut = image.size != (width, height)
    shorter = size or max(least, min(*image.size, LARGEST))
    scale = shorter / min(image.size)
    if scale != 1:
        image = image.resize(tuple(round(side * scale) for side in image.size), Image.Resampling.BICUBIC)
    image = image.crop((0, 0, *(side // multiple * multiple or side for side in image.size)))
    shown = "" if image.size == (width, height) else f", seen at {image.width} x {image.height}"
    shown = shown.replace("seen", "its middle seen") if cut else shown
    return Picture(image, (*((label,) if label else ()), name, f"{width} x {height} px{shown}"))


def middle(image: Image.Image, most: float) -> Image.Image:
    """The middle of an image whose longer side is more than `most` times the shorter; others as they are."""
    width, height = image.size
    limit = round(most * min(width, height))
    if max(width, height) <= limit:
        return image
    left, top = max(0, width - limit) // 2, max(0, height - limit) // 2
    return image.crop((left, top, left + min(width, limit), top + min(height, limit)))


def pictures(manifest: Manifest, count: int, **options: Any) -> list[Picture]:
    """`count` images of a data set, from each class in turn; options as of `read`."""
    return [
        read(
            manifest.read(i),
            manifest.paths[i].rpartition("/")[2],
            label=manifest.classes[manifest.labels[i]],
            **options,
        )
        for i in spread(manifest, count)
    ]


def spread(manifest: Manifest, count: int) -> np.ndarray:
    """Rows of `count` images (at most all): the first of each class, then the second of each, and so on."""
    seen, place = Counter(), []
    for label in manifest.labels.tolist():
        place.append(seen[label])
        seen[label] += 1
    return np.argsort(place, kind="stable")[:count]


def map_image(values: np.ndarray, like: Image.Image) -> Image.Image:
    """(h, w) or (h, w, 3) values within 0 to 1 as large blocks, of the size of another image."""
    if values.ndim == 2:
        from matplotlib import colormaps

        values = colormaps["inferno"](values)[..., :3]
    blocks = Image.fromarray((values.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    return blocks.resize(like.size, Image.Resampling.NEAREST)
