"""Clips to segment: DAVIS in its official folders, or one folder of frames and a mask of its first."""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from clever_fast.errors import UserError
from clever_fast.evaluate.segmentation.masks import images_in, mask_pixels, read_mask
from clever_fast.pipelines.reading import size_of

LISTS = ("ImageSets/2017/val.txt", "ImageSets/480p/val.txt", "ImageSets/2016/val.txt")
FRAMES, MASKS = "JPEGImages/480p", "Annotations/480p"
ARCHIVES = "DAVIS-2017-trainval-480p.zip (or DAVIS-data.zip for DAVIS-2016) of https://davischallenge.org"


@dataclass(frozen=True)
class Clip:
    name: str
    frames: list[Path]  # in order; the first has a mask
    first_mask: Path
    truth: dict[str, Path] = field(default_factory=dict)  # masks by the stem of their frame, where there are any


def find_clips(data: Path, mask: Path | None = None) -> list[Clip]:
    """The clips of a folder, not yet checked.

    Args:
        data: a copy of DAVIS, or a folder of frames.
        mask: of the first frame, for a folder of frames.

    Raises:
        UserError: the folder is neither; names the official archive and what is missing.
    """
    if not data.is_dir():
        raise UserError(f"{data} is no folder; unpack {ARCHIVES} and give its folder DAVIS, or give a folder of frames")
    frames = images_in(data)
    if frames:
        if mask is None:
            raise UserError(f"{data} is a folder of frames: give the mask of {frames[0].name} with --mask FILE")
        if not mask.is_file():
            raise UserError(f"{mask}: no such mask")
        return [Clip(data.resolve().name, frames, mask)]
    if mask is not None:
        raise UserError(f"--mask {mask} belongs to a folder of frames; {data} holds none")
    listed = next((data / name for name in LISTS if (data / name).is_file()), None)
    missing = [name for name in (FRAMES, MASKS) if not (data / name).is_dir()]
    if listed is None:
        missing.append(LISTS[0])
    if missing:
        raise UserError(f"{data} lacks {', '.join(missing)}: unpack {ARCHIVES} and give its folder DAVIS")
    names = list(dict.fromkeys(map(_clip_name, filter(str.strip, listed.read_text().splitlines()))))
    if not names:
        raise UserError(f"{listed} names no clip")
    return [_official(data, name) for name in names]


def check(clip: Clip, patch: int) -> None:
    """See that a clip can be segmented: its frames follow one another and have one size, which its masks have too.

    Args:
        patch: pixels that a frame must have on each side.

    Raises:
        UserError: they do not; names the file.
    """
    if not clip.frames:
        raise UserError(f"{clip.name} has no frames in {FRAMES}")
    if not clip.first_mask.is_file():
        raise UserError(f"{clip.first_mask} is missing: the first frame needs a mask")
    if len(clip.frames) < 2:
        raise UserError(f"{clip.frames[0]} is the only frame: there is nothing to segment")
    if clip.truth and len(clip.frames) < 3:
        raise UserError(f"{clip.name} has two frames: the first is given, and DAVIS scores no last one")
    _check_numbers(clip.frames)
    bare = [frame for frame in clip.frames if clip.truth and frame.stem not in clip.truth]
    if bare:
        raise UserError(f"{bare[0]} has no mask beside {clip.first_mask}: a scored clip needs one for each frame")
    size = size_of(clip.frames[0])
    if min(size) < patch:
        raise UserError(f"{clip.frames[0]} is {size[0]} x {size[1]} pixels, smaller than a patch of {patch}")
    masks = {clip.first_mask, *clip.truth.values()}
    for path in (*clip.frames[1:], *sorted(masks)):
        other = mask_pixels(path).shape[1::-1] if path in masks else size_of(path)
        if other != size:
            raise UserError(
                f"{path} is {other[0]} x {other[1]} pixels, its clip's first frame {size[0]} x {size[1]}: "
                "frames and masks must have one size"
            )
    if not read_mask(clip.first_mask).any():
        raise UserError(f"{clip.first_mask} is all black: it must mark at least one object")


def _official(data: Path, name: str) -> Clip:
    frames = images_in(data / FRAMES / name)
    masks = {path.stem: path for path in images_in(data / MASKS / name)}
    first = frames[0].stem if frames else "00000"
    truth = {frame.stem: masks[frame.stem] for frame in frames if frame.stem in masks}
    # DAVIS' test sets come with the mask of the first frame alone, which is no truth to compare with
    return Clip(name, frames, masks.get(first, data / MASKS / name / f"{first}.png"), truth if len(truth) > 1 else {})


def _clip_name(line: str) -> str:
    """DAVIS-2017 lists names, DAVIS-2016 pairs of files: /JPEGImages/480p/bear/00000.jpg /Annotations/..."""
    return Path(line.strip().split(" /")[0]).parent.name if "/" in line else line.strip()


def _check_numbers(frames: list[Path]) -> None:
    """Frames whose names end in numbers must rise by one step throughout."""
    found = [re.search(r"\d+$", frame.stem) for frame in frames]
    if not all(found):
        return
    numbers = [int(match.group()) for match in found]
    steps = [after - before for before, after in pairwise(numbers)]
    usual = max(set(steps), key=steps.count)
    for step, (before, after) in zip(steps, pairwise(frames), strict=True):
        if step != usual:
            raise UserError(f"{after} follows {before.name}: the frames jump in number, the others rise by {usual}")
