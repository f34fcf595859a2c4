"""Contact sheets: images in cells of one size, with lines of text under them."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from clever_fast.pipelines.manifest_file import escape

CELL = 152  # pixels of an image's place on the sheet
GAP = 14
MARGIN = 32
LINE = 15
HEADER = 64  # pixels of a block's title and column names
INK, FAINT, PAPER = (28, 28, 32), (110, 112, 120), (252, 252, 250)


@dataclass(frozen=True)
class Tile:
    """An image, the lines under it, and the colour of the first one."""

    image: Image.Image
    lines: Sequence[str] = ()
    ink: tuple[int, int, int] = INK


def sheet_of(
    rows: Sequence[Sequence[Tile]],
    *,
    title: str,
    subtitle: str,
    columns: dict[int, str],
    cell: int = CELL,
    after: Sequence[int] = (),
) -> Image.Image:
    """Rows of tiles under a title.

    Args:
        rows: tiles from left to right, all rows of one length.
        title: in large letters.
        subtitle: beside the title.
        columns: names over the columns, by the number of the column where the name begins.
        cell: pixels of an image's longer side.
        after: columns that are set off from the next one.
    """
    subtitle = escape(subtitle)  # a font has no glyph for a byte that is not UTF-8
    left = [MARGIN + i * (cell + GAP) + GAP * sum(column < i for column in after) for i in range(len(rows[0]))]
    height = cell + GAP + max(len(tile.lines) for row in rows for tile in row) * LINE + 8
    large, small = ImageFont.load_default(26), ImageFont.load_default(14)
    beside = MARGIN + round(large.getlength(title)) + 2 * GAP
    width = max(left[-1] + cell, beside + round(small.getlength(subtitle))) + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + HEADER + len(rows) * height + MARGIN - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, large)
    draw.text((beside, MARGIN + 10), subtitle, FAINT, small)
    for column, name in columns.items():
        draw.text((left[column], MARGIN + 38), name, FAINT, small)
    for i, row in enumerate(rows):
        for x, tile in zip(left, row, strict=True):
            place = (x, MARGIN + HEADER + i * height)
            paste(sheet, tile.image, place, cell)
            write(sheet, place, tile.lines, cell, tile.ink)
    return sheet


def paste(sheet: Image.Image, image: Image.Image, place: tuple[int, int], cell: int = CELL) -> None:
    """Fits an image into its cell; a small one with its pixels visible."""
    smooth = max(image.size) > 64
    image = contain(image, cell, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)
    sheet.paste(image, (place[0], place[1] + cell - image.height))


def contain(image: Image.Image, cell: int, resampling: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """The image at its own proportions in a square of `cell` pixels; no side is less than one."""
    scale = cell / max(image.size)
    return image.resize(tuple(max(1, round(side * scale)) for side in image.size), resampling)


def write(
    sheet: Image.Image,
    place: tuple[int, int],
    lines: Sequence[str],
    cell: int = CELL,
    ink: tuple[int, int, int] = INK,
) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for i, line in enumerate(lines):
        draw.text((place[0], place[1] + cell + 5 + i * LINE), escape(line), ink if i == 0 else FAINT, font)
