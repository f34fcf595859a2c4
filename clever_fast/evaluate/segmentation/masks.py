"""Images and masks of objects as files; masks are grey or indexed, with the palette of DAVIS and PASCAL VOC."""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from clever_fast.errors import UserError
from clever_fast.pipelines.listing import EXTENSIONS
from clever_fast.pipelines.reading import open_file, read_file

VOID = 255  # of a mask with several objects: belongs to none and is not scored
MOST = 255  # objects that an indexed mask can tell apart


def palette() -> np.ndarray:
    """(256, 3) uint8: bit k of an index is spread over the high bits of red, green and blue."""
    index, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> channel) & 1) << (7 - bit)).astype(np.uint8)
        index >>= 3
    return colours


def read_mask(path: Path, objects: int | None = None) -> np.ndarray:
    """(H, W) uint8: 0 for the background, 1 to 254 for the objects. 255 is one object where the file is black and
    white and its clip has no other `objects`, and background (void) elsewhere.

    Raises:
        UserError: it cannot be read, is a colour picture, or holds more than 255 objects.
    """
    pixels = mask_pixels(path)
    if pixels.ndim == 3:
        colours = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1]
        if (colours != colours[..., :1]).any():
            raise UserError(f"{path} is a colour picture: give masks as grey or indexed images")
        pixels = colours[..., 0]
    present = np.unique(pixels)
    if present[-1] > MOST or present[0] < 0:
        raise UserError(f"{path} holds object {present[-1]}: an indexed mask has at most {MOST} objects")
    mask = pixels.astype(np.uint8)
    if present[-1] == VOID:
        mask = np.where(mask == VOID, 1 if len(present) <= 2 and objects in (None, 1) else 0, mask).astype(np.uint8)
    return mask


def images_in(folder: Path) -> list[Path]:
    """The images of a folder in the order of their numbers; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.name[0] != "."), key=_in_order
    )


def _in_order(path: Path) -> list[str | int]:
    """9.jpg comes before 10.jpg."""
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", path.stem)]


def mask_pixels(path: Path, mode: str | None = None) -> np.ndarray:
    """The values of a mask as they are stored, or in one of Pillow's modes, turned upright as its EXIF says.

    A reader of pictures would turn an indexed mask into colours.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open_file(path) as file, Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert(mode) if mode else upright)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a mask: {error}") from None


def read_image(path: Path) -> Image.Image:
    """RGB, as training sees it.

    Raises:
        UserError: it cannot be read.
    """
    return Image.fromarray(read_file(path))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """(H, W) uint8 as an indexed PNG."""
    image = Image.fromarray(mask, "L")
    image.putpalette(palette().tobytes())
    image.save(path)
