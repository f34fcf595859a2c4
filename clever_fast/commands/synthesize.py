"""`clever-fast synthesize`: a labelled set of JPEGs that needs no download."""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from PIL import Image

from clever_fast.errors import UserError
from clever_fast.progress import images_bar

MARKER = "synthetic.json"
VERSION = CLIPS_VERSION = 1  # of the generators: the same options and version give the same bytes


def synthesize(
    out: Path,
    *,
    label: Literal["material", "texture", "shape"] = "texture",
    per_class: int = 200,
    val_per_class: int = 50,
    size: int = 64,
    aspect: float = 1.0,
    seed: int = 0,
    workers: int = 0,
) -> None:
    """Draws a labelled set of JPEGs with the statistics of photographs: OUT/train/CLASS/*.jpg and OUT/val/CLASS/*.jpg.

    There are ten classes. Colours, contrast, place, scale, background and light say nothing about the class. The same
    options give the same bytes, whatever the number of workers.

    Args:
        out: Folder to write; it must be new, empty, or hold this very set.
        label: What the class is: a material seen close up, which is learned in minutes; the texture of an object in a
            scene, which takes longer; or the shape of the object.
        per_class: Training images per class.
        val_per_class: Validation images per class.
        size: Shorter side in pixels.
        aspect: Longer side over shorter side.
        seed: Another seed gives another set.
        workers: Processes; 0 is one per core.
    """
    from clever_fast.synthetic.scenes import LABELS

    for name, value, least in (("per_class", per_class, 1), ("val_per_class", val_per_class, 0), ("size", size, 16)):
        if value < least:
            raise UserError(f"--{name} {value} is too small: give at least {least}")
    if not 1 <= aspect <= 4:
        raise UserError(f"--aspect {aspect} is the longer over the shorter side: give 1 to 4")
    options = {"version": VERSION, "label": label, "per_class": per_class, "val_per_class": val_per_class}
    options |= {"size": size, "aspect": aspect, "seed": seed}
    if _claim(out, options):
        print(f"{out} already holds this set")
        return
    jobs = [
        (split, name, index)
        for split, count in (("train", per_class), ("val", val_per_class))
        for name in LABELS[label]
        for index in range(count)
    ]
    for split, name, index in jobs:
        if index == 0:
            (out / split / name).mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    write = partial(_write, out, label, size, aspect, seed)
    with (
        images_bar("drawing", len(jobs)) as advance,
        _map(write, jobs, _workers(workers)) as results,
    ):
        for _ in results:
            advance()
    _mark(out, options, complete=True)
    seconds = time.perf_counter() - started
    print(f"{out}: {len(jobs):,} images, {len(LABELS[label])} classes, {len(jobs) / seconds:,.0f} images/s")


def clips(
    out: Path,
    *,
    count: int = 4,
    frames: int = 24,
    objects: int = 2,
    images: int = 12,
    size: int = 240,
    seed: int = 0,
    workers: int = 0,
) -> None:
    """Draws clips of textured objects that move over a panning background, with the exact mask of every frame.

    They lie as DAVIS-2017 does (OUT/JPEGImages, Annotations, ImageSets), and single images with one object each as
    ECSSD does (OUT/images, ground_truth_mask). The same options give the same bytes.

    Args:
        out: Folder to write; it must be new, empty, or hold this very set.
        count: Clips.
        frames: Of each clip.
        objects: Of each clip.
        images: Single images.
        size: Shorter side in pixels; the longer is 16/9 of it.
        seed: Another seed gives another set.
        workers: Processes; 0 is one per core.
    """
    for name, value, least in (("count", count, 1), ("frames", frames, 3), ("objects", objects, 1), ("size", size, 32)):
        if value < least:
            raise UserError(f"--{name} {value} is too small: give at least {least}")
    if images < 0 or objects > 254:
        raise UserError(f"--images {images} must not be below 0, and --objects {objects} not above 254")
    options = {"version": CLIPS_VERSION, "clips": count, "frames": frames, "objects": objects, "images": images}
    options |= {"size": size, "seed": seed}
    if _claim(out, options):
        print(f"{out} already holds this set")
        return
    jobs = [("clip", index) for index in range(count)] + [("image", index) for index in range(images)]
    write = partial(_write_clip, out, frames, objects, size, seed)
    with images_bar("drawing", len(jobs)) as advance, _map(write, jobs, min(len(jobs), _workers(workers))) as results:
        for _ in results:
            advance()
    names = out / "ImageSets/2017/val.txt"
    names.parent.mkdir(parents=True, exist_ok=True)
    names.write_text("".join(f"clip{index:02d}\n" for index in range(count)))
    _mark(out, options, complete=True)
    print(f"{out}: {count} clips of {frames} frames, {images} images with masks")


def _write_clip(out: Path, frames: int, objects: int, size: int, seed: int, job: tuple[str, int]) -> None:
    from clever_fast.evaluate.segmentation.masks import write_mask
    from clever_fast.synthetic.clips import clip, still

    kind, index = job
    if kind == "image":
        folders, drawn = ("images", "ground_truth_mask"), [still(seed, index, size=size)]
    else:
        folders = [f"{folder}/480p/clip{index:02d}" for folder in ("JPEGImages", "Annotations")]
        drawn = clip(seed, index, frames=frames, objects=objects, size=size)
    for folder in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)
    for number, (image, mask) in enumerate(drawn, start=index if kind == "image" else 0):
        image.save(out / folders[0] / f"{number:05d}.jpg", quality=92)
        path = out / folders[1] / f"{number:05d}.png"
        if kind == "image":
            Image.fromarray(mask * 255).save(path)
        else:
            write_mask(path, mask)


def _workers(asked: int) -> int:
    return asked or len(os.sched_getaffinity(0))


def _write(out: Path, label: str, size: int, aspect: float, seed: int, job: tuple[str, str, int]) -> None:
    from clever_fast.synthetic.scenes import photograph

    split, name, index = job
    data = photograph(seed, split, name, index, kind=label, size=size, aspect=aspect)
    (out / split / name / f"{index:05d}.jpg").write_bytes(data)


def _claim(out: Path, options: dict) -> bool:
    """Whether `out` holds the finished set; otherwise marks it as begun, if nothing else lies there."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a folder to write")
    marker = out / MARKER
    if marker.exists():
        found = json.loads(marker.read_text())
        complete = found.pop("complete", False)
        if found != options:
            changed = ", ".join(f"{key} {found.get(key)}" for key in options if found.get(key) != options[key])
            raise UserError(f"{out} holds another synthetic set ({changed}): remove it or name another folder")
        if complete:
            return True
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and not a synthetic set: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    _mark(out, options, complete=False)
    return False


def _mark(out: Path, options: dict, complete: bool) -> None:
    temporary = out / f"{MARKER}.tmp"
    temporary.write_text(json.dumps(options | {"complete": complete}, indent=1) + "\n")
    temporary.replace(out / MARKER)


@contextmanager
def _map(function, jobs: list, workers: int):
    if workers == 1:
        yield map(function, jobs)
        return
    # Spawned, not forked: the caller may hold threads, of torch or of a progress bar.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map(function, jobs, chunksize=16)
