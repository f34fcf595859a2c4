"""Video object segmentation with frozen features, the protocol of DINO on DAVIS."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from clever_fast.accelerator import Accelerator
from clever_fast.evaluate.segmentation.boundaries import Statistics, boundary_accuracy, region_similarity, statistics
from clever_fast.evaluate.segmentation.clips import Clip
from clever_fast.evaluate.segmentation.maps import Maps, normalised
from clever_fast.evaluate.segmentation.masks import read_image, read_mask
from clever_fast.evaluate.segmentation.propagation import Propagation, propagate
from clever_fast.pipelines.reading import size_of

STEP = 64  # the longer side is cut down to a multiple of it
BATCH = {"cpu": 2, "cuda": 16}  # frames that the network sees at once


@dataclass(frozen=True)
class Score:
    """J and F of one object over the frames of a clip, its first and last left out."""

    clip: str
    object: int
    region: Statistics
    boundary: Statistics


def frame_size(clip: Clip, size: int) -> tuple[int, int]:
    """(height, width) that frames are resized to: the shorter side becomes `size`, the longer a multiple of 64."""
    width, height = size_of(clip.frames[0])
    longer = max(width, height) * size // min(width, height) // STEP * STEP or size
    return (longer, size) if height > width else (size, longer)


def segment(
    clip: Clip, maps: Maps, size: tuple[int, int], settings: Propagation, accelerator: Accelerator
) -> Iterator[np.ndarray]:
    """Masks (H, W) uint8 of every frame, at the frame's own size; the first is the one that was given.

    Args:
        clip: one that `check` found good.
        maps: features of normalised frames.
        size: (height, width) of the frames that the network sees.
        settings: of the propagation.
        machine: what `maps` runs on.
    """
    first = read_mask(clip.first_mask)
    features = _features(clip, maps, size, accelerator)
    start = next(features)
    coarse = np.array(Image.fromarray(first).resize(start.shape[:0:-1], Image.Resampling.NEAREST))
    labels = torch.arange(int(first.max()) + 1, device=start.device)[:, None, None]
    labels = (labels == torch.from_numpy(coarse).to(start.device)).float()
    found = propagate(chain([start], features), labels, settings)
    next(found)
    yield first
    for soft in found:
        yield resized(harden(soft, size), first.shape)


def _features(clip: Clip, maps: Maps, size: tuple[int, int], accelerator: Accelerator) -> Iterator[Tensor]:
    batch = BATCH[accelerator.device.type]
    with ThreadPoolExecutor(accelerator.execution.threads) as pool:
        for begin in range(0, len(clip.frames), batch):
            images = list(pool.map(read_image, clip.frames[begin : begin + batch]))
            yield from maps(normalised(images, size))


def harden(soft: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Soft labels (C, h, w) to (H, W) uint8: upsampled, each label's scores stretched to 0 to 1, then the highest."""
    scores = F.interpolate(soft.contiguous()[None], size=size, mode="bilinear", align_corners=False)[0]
    low, high = scores.amin((1, 2), keepdim=True), scores.amax((1, 2), keepdim=True)
    scores = (scores - low) / (high - low).clamp(min=torch.finfo(scores.dtype).tiny)
    return scores.max(0).indices.to(torch.uint8).cpu().numpy()  # argmax(0) takes 15 times as long on a CPU


def resized(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST))


def measures(truth: np.ndarray, mask: np.ndarray, objects: int) -> np.ndarray:
    """(2, objects) float64: J and F of each object in one frame."""
    pairs = [(truth == label, mask == label) for label in range(1, objects + 1)]
    return np.array([[measure(*pair) for pair in pairs] for measure in (region_similarity, boundary_accuracy)])


def score(
    clip: Clip, masks: Iterable[np.ndarray], keep: Callable[[Path, np.ndarray], None]
) -> tuple[list[Score], list[Score]]:
    """The scores of a clip's masks, and those of its first mask held still; none where there is no truth.

    Args:
        masks: of every frame.
        keep: called with each frame and its mask.
    """
    found, still, first = [], [], read_mask(clip.first_mask)
    for frame, mask in zip(clip.frames, masks, strict=True):
        keep(frame, mask)
        if clip.truth and frame not in (clip.frames[0], clip.frames[-1]):
            objects = int(first.max())
            truth = read_mask(clip.truth[frame.stem], objects)
            found.append(measures(truth, mask, objects))
            still.append(measures(truth, first, objects))
    return _scores(clip, found), _scores(clip, still)


def _scores(clip: Clip, frames: list[np.ndarray]) -> list[Score]:
    if not frames:
        return []
    objects = np.stack(frames, axis=-1).swapaxes(0, 1)  # (objects, 2, frames)
    return [
        Score(clip.name, label, statistics(region), statistics(edge))
        for label, (region, edge) in enumerate(objects, start=1)
    ]


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """Means over all objects in percent, under the names of DAVIS' tables."""
    rows = {}
    for letter, name in (("J", "region"), ("F", "boundary")):
        for key in Statistics._fields:
            rows[f"{letter} {key}"] = 100 * float(np.mean([getattr(getattr(score, name), key) for score in scores]))
    return {"J&F": (rows["J mean"] + rows["F mean"]) / 2, **rows}


def as_row(score: Score) -> dict:
    """For a JSON file."""
    return {**vars(score), "region": score.region._asdict(), "boundary": score.boundary._asdict()}
