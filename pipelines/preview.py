"""A contact sheet of a policy's crops: rows of images, columns of views, one block for each policy."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clever_fast.pipelines.contact_sheet import CELL, FAINT, GAP, HEADER, INK, LINE, MARGIN, PAPER, paste, write
from clever_fast.pipelines.loader_options import LoaderOptions
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.policies import Policy
from clever_fast.pipelines.pretraining import MEAN, STD, PretrainingLoader
from clever_fast.pipelines.reading import read_pixels
from clever_fast.pipelines.views import by_crop

LINES = 5  # of text under a crop
LEAST = 4 * (CELL + GAP)  # pixels of a policy's name and at most two lines beside it
LARGE, SMALL = ImageFont.load_default(26), ImageFont.load_default(14)


def contact_sheet(
    manifest: Manifest, policies: list[Policy], *, images: int = 4, seed: int = 0, epoch: int = 0, threads: int = 2
) -> Image.Image:
    """The first `images` of an epoch as a run with this seed sees them, under every policy, with the drawn parameters.

    Decodes and augments on the CPU. All policies show the same images, because the order depends on the seed alone.
    """
    count = min(images, len(manifest))
    columns = 1 + max(sum(view.count for view in policy.views) for policy in policies)
    row_height = CELL + LINES * LINE + GAP + 8
    block_height = HEADER + count * row_height + GAP
    run = f"seed {seed}, epoch {epoch}"
    width = max(columns * (CELL + GAP) - GAP, LEAST) + 2 * MARGIN
    sheet = Image.new("RGB", (width, MARGIN + len(policies) * block_height), PAPER)
    for block, policy in enumerate(policies):
        top = MARGIN + block * block_height
        _write_header(sheet, policy, top, run)
        loader = PretrainingLoader(
            manifest, policy, seed=seed, batch_size=count, options=LoaderOptions(threads=threads), dtype="float32",
            start_step=epoch * (len(manifest) // count),
        )  # fmt: skip
        indices, views = next(iter(loader))
        pixels = [crop * STD + MEAN for crop in by_crop(views, count)]
        drawn = loader.sampler.parameters(indices, epoch)
        loader.close()
        for row, index in enumerate(indices):
            y = top + HEADER + row * row_height
            _original(sheet, manifest, int(index), (MARGIN, y))
            area = float(manifest.sizes[index].prod())
            for column, (crop, parameters) in enumerate(zip(pixels, drawn), start=1):
                image = Image.fromarray(crop[row].round().clip(0, 255).astype(np.uint8))
                place = (MARGIN + column * (CELL + GAP), y)
                paste(sheet, image, place)
                write(sheet, place, describe({name: array[row] for name, array in parameters.items()}, area))
    return sheet


def describe(drawn: dict, area: float) -> list[str]:
    """The parameters of one crop as lines of text; `area`: of the image, in pixels."""
    (y0, x0), (y1, x1) = drawn["crop_start"], drawn["crop_end"]
    shape = [f"{abs(x1 - x0) * (y1 - y0) / area:.0%} of the image"] + ["flip"] * bool(x0 > x1)
    geometry = [f"turn {drawn['angle']:+.0f}°"] if "angle" in drawn else []
    geometry += ["elastic"] * bool(drawn.get("elastic", False))
    light, colour = [], []
    if drawn.get("jitter", False):
        light = [f"bright {drawn['brightness']:.2f}", f"contrast {drawn['contrast']:.2f}"]
        colour = [f"satur {drawn['saturation']:.2f}", f"hue {360 * drawn['hue']:+.0f}°"]
    last = ["gray"] * bool(drawn.get("grayscale", False))
    last += [f"blur {drawn['blur_sigma']:.1f}"] * bool(drawn.get("blur", False))
    last += ["solarize"] * bool(drawn.get("solarize", False))
    return [", ".join(parts) for parts in (shape, geometry, light, colour, last) if parts]


def _title(policy: Policy, run: str, width: float) -> tuple[float, str]:
    """Where the lines beside a policy's name begin, right of the margin, and the lines, folded to end at `width`."""
    steps = dict.fromkeys(type(step).__name__ for view in policy.views for step in view.augmentations)
    left, lines = max(CELL + GAP, LARGE.getlength(policy.name.upper()) + 2 * GAP), [""]
    for word in (", ".join(["RandomResizedCrop", "flip", *steps]) + f"; {run}").split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and SMALL.getlength(longer) > width - left:
            lines.append(word)
        else:
            lines[-1] = longer
    return left, "\n".join(lines)


def _write_header(sheet: Image.Image, policy: Policy, top: int, run: str) -> None:
    draw = ImageDraw.Draw(sheet)
    left, text = _title(policy, run, sheet.width - 2 * MARGIN)
    draw.text((MARGIN, top), policy.name.upper(), INK, LARGE)
    draw.multiline_text((MARGIN + left, top + 2 if "\n" in text else top + 10), text, FAINT, SMALL, spacing=2)
    names = ["original"]
    for kind, views in (("global", policy.views[:2]), ("local", policy.views[2:])):
        crops = [view for view in views for _ in range(view.count)]
        names += [f"{kind} {i}, {view.size} px" for i, view in enumerate(crops, start=1)]
    for column, name in enumerate(names):
        draw.text((MARGIN + column * (CELL + GAP), top + 38), name, FAINT, SMALL)


def _original(sheet: Image.Image, manifest: Manifest, index: int, place: tuple[int, int]) -> None:
    path = manifest.paths[index]
    paste(sheet, Image.fromarray(read_pixels(manifest.read(index), path)), place)
    name = path.rsplit("/", 1)[-1]
    width, height = manifest.sizes[index]
    write(sheet, place, [manifest.classes[manifest.labels[index]][:24], name[:24], f"{width} x {height} px"])
