"""Unsupervised saliency with frozen features, the protocol of TokenCut on ECSSD, DUTS-TE and DUT-OMRON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from clever_fast.accelerator import Accelerator
from clever_fast.errors import UserError
from clever_fast.evaluate.segmentation.bilateral import bilateral_solver
from clever_fast.evaluate.segmentation.maps import Maps, normalised
from clever_fast.evaluate.segmentation.masks import images_in, mask_pixels, read_image
from clever_fast.evaluate.segmentation.tokencut import tokencut
from clever_fast.pipelines.reading import size_of

BETA = 0.3  # squared, of the F-measure
LEVELS = np.arange(255) / 255  # at which a map is cut for the F-measure
LAYOUTS = {  # set -> its archives, and the folders of images and masks that they hold
    "ECSSD": ("images.zip and ground_truth_mask.zip", "images", "ground_truth_mask"),
    "DUTS-TE": ("DUTS-TE.zip", "DUTS-TE-Image", "DUTS-TE-Mask"),
    "DUT-OMRON": (
        "DUT-OMRON-image.zip and DUT-OMRON-gt-pixelwise.zip.zip",
        "DUT-OMRON-image",
        "pixelwiseGT-new-PNG",
    ),
}
BATCH = {"cpu": 4, "cuda": 32}  # images that the network sees at once
LOSSY = {".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Pair:
    image: Path
    truth: Path


@dataclass(frozen=True)
class Found:
    """What was found in one image, at its own size (H, W)."""

    pair: Pair
    eigenvector: np.ndarray  # (h, w) float64, one value a position
    maps: dict[str, np.ndarray]  # (H, W) float64, 0 to 1: TokenCut's own, and refined by the solver

    @property
    def final(self) -> np.ndarray:
        return list(self.maps.values())[-1]


def find_pairs(data: Path, masks: Path | None = None) -> tuple[str, list[Pair]]:
    """The name of a set and its images with their masks, found by their names less the ending.

    Args:
        data: the folder of ECSSD, DUTS-TE or DUT-OMRON, or any folder of images.
        masks: their masks, for a folder of images.

    Raises:
        UserError: the folder is neither; names the official archives and what is missing.
    """
    if masks is not None:
        name, images = data.resolve().name, data
    else:
        for name, (archives, *folders) in LAYOUTS.items():
            present = [(data / folder).is_dir() for folder in folders]
            if all(present):
                images, masks = (data / folder for folder in folders)
                break
            if any(present):
                raise UserError(f"{data} lacks {folders[present.index(False)]}: unpack {archives} of {name} there")
        else:
            known = "; ".join(f"{name}: {' and '.join(folders)} of {of}" for name, (of, *folders) in LAYOUTS.items())
            raise UserError(
                f"{data} holds no set known here ({known}): give --data IMAGES --masks MASKS for any two folders"
            )
    for folder in (images, masks):
        if not images_in(folder):
            raise UserError(f"{folder} holds no images")
    by_stem = {path.stem: path for path in images_in(masks)}
    return name, [Pair(path, by_stem.get(path.stem, masks / f"{path.stem}.png")) for path in images_in(images)]


def check(pair: Pair, patch: int) -> None:
    """See that an image can be segmented and scored.

    Raises:
        UserError: it cannot; names the file.
    """
    size = size_of(pair.image)
    if min(size) < patch:
        raise UserError(f"{pair.image} is {size[0]} x {size[1]} pixels, smaller than a patch of {patch}")
    if not pair.truth.is_file():
        raise UserError(f"{pair.truth} is missing: {pair.image.name} has no mask")
    truth = read_truth(pair.truth)
    other = truth.shape[::-1]
    if other != size:
        raise UserError(f"{pair.truth} is {other[0]} x {other[1]} pixels, its image {size[0]} x {size[1]}")
    read_image(pair.image)
    if not truth.any():
        raise UserError(f"{pair.truth} is all black: it must mark an object")


def read_truth(path: Path) -> np.ndarray:
    """(H, W) bool: whatever is not black, as in TokenCut; of lossy files whatever is nearer to white."""
    pixels = mask_pixels(path, "L")
    return pixels > (127 if path.suffix.lower() in LOSSY else 0)


def cut_all(
    pairs: Sequence[Pair], maps: Maps, patch: int, accelerator: Accelerator, *, largest: int, solver: bool
) -> Iterator[Found]:
    """TokenCut of every image. Images of one size are taken together, so they come in another order.

    Args:
        pairs: those that `check` found good.
        maps: features of normalised images.
        patch: pixels that sides are rounded to multiples of.
        machine: what `maps` runs on.
        largest: pixels of the longer side; images above it are shrunk first, for a graph has (h * w)^2 edges.
        solver: refine the masks with the bilateral solver.
    """
    sized = sorted(((_fitted(size_of(pair.image), patch, largest), pair) for pair in pairs), key=lambda item: item[0])
    for (height, width), group in groupby(sized, key=lambda item: item[0]):
        members, batch = [pair for _, pair in group], BATCH[accelerator.device.type]
        for begin in range(0, len(members), batch):
            some = members[begin : begin + batch]
            images = [read_image(pair.image) for pair in some]
            shrunk = [image.resize((width, height), Image.Resampling.LANCZOS) for image in images]
            cuts = tokencut(maps(normalised(shrunk, (height, width))))
            for pair, image, cut in zip(some, images, cuts, strict=True):
                found = {"TokenCut": enlarged(cut.mask, (image.height, image.width))}
                if solver:
                    found["with solver"] = bilateral_solver(np.asarray(image), found["TokenCut"])
                yield Found(pair, cut.eigenvector, found)


def enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (h, w) at (height, width), float64: row y shows row floor(y h / height), as torch's `nearest` has it.

    Pillow's takes floor((y + 0.5) h / height), which is another row wherever a side is no multiple of the mask's.
    """
    pixels = torch.from_numpy(mask.astype(np.float64))[None, None]
    return F.interpolate(pixels, size=size, mode="nearest")[0, 0].numpy()


def centred(maps: Maps) -> Maps:
    """Features less their mean over the image, for networks without keys: never negative or with one direction in
    common, all positions are alike otherwise, and the graph has every edge."""

    def less_mean(images: Tensor) -> Tensor:
        features = maps(images)
        return features - features.mean((2, 3), keepdim=True)

    return less_mean


def write_map(path: Path, found: np.ndarray) -> None:
    """(H, W) from 0 to 1 as a grey PNG."""
    Image.fromarray((found.clip(0, 1) * 255 + 0.5).astype(np.uint8)).save(path)


def _fitted(size: tuple[int, int], patch: int, largest: int) -> tuple[int, int]:
    """(height, width) of an image of (width, height) for the network."""
    shrink = min(1.0, largest / max(size))
    return tuple(max(1, round(side * shrink / patch)) * patch for side in reversed(size))


def measures(truth: np.ndarray, found: np.ndarray) -> tuple[float, float, np.ndarray]:
    """IoU and accuracy of a map (H, W) cut at 0.5, and its F-measure (255,) cut at each of LEVELS."""
    mask = found > 0.5
    union = np.count_nonzero(truth | mask)
    iou = np.count_nonzero(truth & mask) / union if union else 1.0
    passed = np.searchsorted(LEVELS, found.ravel(), side="left")  # levels that a pixel lies above
    above, right = (
        np.bincount(which, minlength=256)[::-1].cumsum()[-2::-1] for which in (passed, passed[truth.ravel()])
    )
    precision = np.divide(right, above, out=np.ones(255), where=above > 0)
    recall = right / max(1, np.count_nonzero(truth))
    weighted = BETA * precision + recall
    f = np.divide((1 + BETA) * precision * recall, weighted, out=np.zeros(255), where=weighted > 0)
    return iou, float((mask == truth).mean()), f


def summary(rows: Sequence[tuple[float, float, np.ndarray]]) -> dict[str, float]:
    """Means over the images in percent; max F is the best level's mean, one level for all images."""
    iou, accuracy, f = (np.array(column) for column in zip(*rows, strict=True))
    scores = {"max F": f.mean(0).max(), "IoU": iou.mean(), "accuracy": accuracy.mean()}
    return {name: 100 * float(value) for name, value in scores.items()}
