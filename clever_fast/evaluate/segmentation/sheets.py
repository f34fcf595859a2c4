"""Pictures to look at: contact sheets of what was segmented, and a clip with its masks as an animation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clever_fast.evaluate.segmentation.boundaries import boundary
from clever_fast.evaluate.segmentation.clips import Clip
from clever_fast.evaluate.segmentation.masks import palette, read_image, read_mask
from clever_fast.evaluate.segmentation.saliency import Found, read_truth

CELL, GAP, MARGIN, TITLE = 300, 8, 20, 26  # pixels: longest side of a picture, between them, around, above a column
SHOWN = 6  # frames of a clip
INK, PAPER = (28, 28, 32), (252, 252, 250)


def clip_sheet(clip: Clip, masks: Path, title: str) -> Image.Image:
    """Frames from the first to the last with the masks that were written to a folder, above the true ones."""
    places = np.unique(np.linspace(0, len(clip.frames) - 1, SHOWN).round().astype(int))
    frames = [clip.frames[place] for place in places]
    found = [overlay(read_image(frame), read_mask(masks / f"{frame.stem}.png")) for frame in frames]
    rows = {"found": found}
    if clip.truth:
        rows["truth"] = [overlay(read_image(frame), read_mask(clip.truth[frame.stem])) for frame in frames]
    names = ["first, given", *(f"frame {place}" for place in places[1:])]
    return sheet(title, names, list(zip(*rows.values(), strict=True)), down=list(rows))


def saliency_sheet(found: Sequence[Found], title: str) -> Image.Image:
    """A row for each image: itself, the eigenvector, what was found, the truth."""
    rows = []
    for one in found:
        image = read_image(one.pair.image)
        masks = [overlay(image, mask.astype(np.uint8)) for mask in (one.final > 0.5, read_truth(one.pair.truth))]
        rows.append([image, heat(one.eigenvector).resize(image.size, Image.Resampling.NEAREST), *masks])
    return sheet(title, ["image", "second eigenvector", "found", "truth"], list(zip(*rows, strict=True)))


def animation(clip: Clip, masks: Path, path: Path, *, milliseconds: int = 80) -> None:
    """The frames with their masks as an animated WebP, which browsers play."""
    first, *rest = (overlay(read_image(frame), read_mask(masks / f"{frame.stem}.png")) for frame in clip.frames)
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, quality=80, method=2)


def overlay(image: Image.Image, mask: np.ndarray, strength: float = 0.55) -> Image.Image:
    """The image with the objects of a mask (H, W) in the palette's colours, outlined in white."""
    pixels, colours = np.asarray(image, np.float32), palette()[mask].astype(np.float32)
    mixed = np.where((mask > 0)[..., None], (1 - strength) * pixels + strength * colours, pixels)
    for label in np.unique(mask[mask > 0]):
        mixed[boundary(mask == label).astype(bool)] = 255
    return Image.fromarray(mixed.astype(np.uint8))


def heat(values: np.ndarray) -> Image.Image:
    """(h, w) in matplotlib's colours, from the lowest to the highest."""
    from matplotlib import colormaps

    spread = np.ptp(values) or 1.0
    return Image.fromarray((colormaps["viridis"]((values - values.min()) / spread)[..., :3] * 255).astype(np.uint8))


def sheet(
    title: str, names: Sequence[str], columns: Sequence[Sequence[Image.Image]], down: Sequence[str] = ()
) -> Image.Image:
    """Named columns of pictures of equal row heights, shrunk to fit; `down` names the rows."""
    cells = [[_shrunk(picture) for picture in column] for column in columns]
    width = max(picture.width for column in cells for picture in column)
    heights = [max(picture.height for picture in row) for row in zip(*cells, strict=True)]
    left = MARGIN + (70 if down else 0)
    top = MARGIN + 2 * TITLE
    size = (left + len(cells) * (width + GAP) - GAP + MARGIN, top + sum(heights) + GAP * (len(heights) - 1) + MARGIN)
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN - 4), title, INK, ImageFont.load_default(19))
    for column, (name, pictures) in enumerate(zip(names, cells, strict=True)):
        x, y = left + column * (width + GAP), top
        draw.text((x, top - TITLE + 2), name, INK, ImageFont.load_default(15))
        for picture, height in zip(pictures, heights, strict=True):
            page.paste(picture, (x, y))
            y += height + GAP
    y = top
    for name, height in zip(down, heights):
        draw.text((MARGIN, y + height // 2 - 8), name, INK, ImageFont.load_default(15))
        y += height + GAP
    return page


def _shrunk(picture: Image.Image) -> Image.Image:
    scale = min(1.0, CELL / max(picture.size))
    if scale == 1:
        return picture
    return picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
