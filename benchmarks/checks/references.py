"""The operations of a view as PIL and torchvision do them, with given parameters."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms.v2 import ElasticTransform, InterpolationMode
from torchvision.transforms.v2 import functional as tv

from clever_fast.pipelines import augmentations as ours
from clever_fast.pipelines.views import View

JITTER = ("brightness", "contrast", "saturation", "hue")


def crop(picture: Image.Image, start: np.ndarray, end: np.ndarray, size: int, interpolation="bicubic") -> Image.Image:
    """The region from `start` to `end`, (y, x) in pixels; mirrored where x runs backwards."""
    (top, left), (height, width) = np.minimum(start, end), np.abs(end - start)
    box = [int(value) for value in (top, left, height, width)]
    region = tv.resized_crop(picture, *box, [size, size], InterpolationMode(interpolation))
    return tv.horizontal_flip(region) if start[1] > end[1] else region


def elastic(picture: Image.Image, pixels: np.ndarray) -> Image.Image:
    """pixels: (S, S, 2), the (x, y) pixel that each one shows; torchvision takes half sizes."""
    size = len(pixels)
    y, x = np.mgrid[:size, :size]
    displacement = (pixels - np.stack([x, y], axis=-1)) * 2 / size
    return tv.elastic(picture, torch.from_numpy(displacement[None].astype(np.float32)))


def displacements(size: int, count: int, seed: int = 0, alpha: float = 100.0) -> np.ndarray:
    """(count, size, size, 2) float32, (x, y) in pixels: torchvision's random elastic displacements."""
    transform, images = ElasticTransform(alpha=alpha), [torch.empty(3, size, size)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = [transform.make_params(images)["displacement"][0].numpy() for _ in range(count)]
    return np.stack(drawn) * size / 2


def adjust(picture: Image.Image, name: str, value: float) -> Image.Image:
    return getattr(tv, f"adjust_{name}")(picture, float(value))


def jitter(picture: Image.Image, drawn: dict[str, float], generator: np.random.Generator) -> Image.Image:
    for name in generator.permutation(JITTER):
        picture = adjust(picture, name, drawn[name])
    return picture


def whole_crop(picture: Image.Image, view: View, drawn: dict, generator: np.random.Generator, pixels) -> np.ndarray:
    """One crop as PIL and torchvision make it with the drawn parameters. pixels: the elastic map, None without."""
    start, end = (drawn[name].astype(int) for name in ("crop_start", "crop_end"))
    picture = crop(picture, start, end, view.size, view.interpolation)
    for augmentation in view.augmentations:
        match augmentation:
            case ours.Rotation():
                picture = tv.rotate(picture, float(drawn["angle"]))
            case ours.Elastic() if pixels is not None:
                picture = elastic(picture, pixels)
            case ours.ColorJitter() if drawn["jitter"]:
                picture = jitter(picture, drawn, generator)
            case ours.Grayscale() if drawn["grayscale"]:
                picture = tv.to_grayscale(picture, 3)
            case ours.GaussianBlur() if drawn["blur"]:
                picture = picture.filter(ImageFilter.GaussianBlur(float(drawn["blur_sigma"])))
            case ours.Solarize() if drawn["solarize"]:
                picture = ImageOps.solarize(picture)
    return np.asarray(picture)
