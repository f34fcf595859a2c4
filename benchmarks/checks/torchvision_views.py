"""The policies with PIL and torchvision, as in the released code of CLeVER: what the pipelines are held against."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import Dataset
from torchvision import transforms

from clever_fast.pipelines import augmentations as ours
from clever_fast.pipelines.augmentations.elastic import SIGMA, TAPS
from clever_fast.pipelines.policies import Policy

FIELD_SIZE = 1024


class Blur:
    """DINO's: PIL's gaussian, an approximation by boxes and the fastest there is for PIL images."""

    def __init__(self, sigma: tuple[float, float]):
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))


class FastElastic:
    """An elastic deformation cut from one smooth field at full resolution: a slice, an addition and OpenCV's remap."""

    def __init__(self, alpha: float, size: int):
        noise = np.random.default_rng(0).uniform(-1, 1, (FIELD_SIZE, FIELD_SIZE, 2)).astype(np.float32)
        self.field = alpha / 2 * cv2.GaussianBlur(noise, (TAPS, TAPS), SIGMA)
        y, x = np.mgrid[:size, :size].astype(np.float32)
        self.identity = np.stack([x, y], axis=-1)

    def __call__(self, image: Image.Image) -> Image.Image:
        size = len(self.identity)
        y, x = (random.randrange(FIELD_SIZE - size) for _ in range(2))
        window = self.field[y : y + size, x : x + size]
        return Image.fromarray(cv2.remap(np.asarray(image), window + self.identity, None, cv2.INTER_LINEAR))


def torchvision_views(policy: Policy, *, fast_elastic: bool) -> list[transforms.Compose]:
    """One transform per crop, from a PIL image to a normalised float32 tensor (3, S, S)."""
    composed = []
    for view in policy.views:
        interpolation = transforms.InterpolationMode(view.interpolation)
        steps = [
            transforms.RandomResizedCrop(view.size, view.scale, interpolation=interpolation),
            transforms.RandomHorizontalFlip(),
            *(_transform(augmentation, view.size, fast_elastic) for augmentation in view.augmentations),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), inplace=True),
        ]
        composed += [transforms.Compose(steps)] * view.count
    return composed


def _transform(augmentation, size: int, fast_elastic: bool):
    match augmentation:
        case ours.Rotation(degrees):
            return transforms.RandomRotation(degrees)
        case ours.Elastic(alpha, probability):
            deform = FastElastic(alpha, size) if fast_elastic else transforms.ElasticTransform(alpha, SIGMA)
            return transforms.RandomApply([deform], probability)
        case ours.ColorJitter(brightness, contrast, saturation, hue, probability):
            return transforms.RandomApply([transforms.ColorJitter(brightness, contrast, saturation, hue)], probability)
        case ours.Grayscale(probability):
            return transforms.RandomGrayscale(probability)
        case ours.GaussianBlur(probability, sigma):
            return transforms.RandomApply([Blur(sigma)], probability)
        case ours.Solarize(probability):
            return transforms.RandomApply([ImageOps.solarize], probability)
    raise TypeError(f"no torchvision counterpart of {augmentation}")


class Crops(Dataset):
    """All crops of an image that is decoded once."""

    def __init__(self, paths: list[Path], length: int, views: list[transforms.Compose]):
        self.paths, self.length, self.views = paths, length, views

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        image = Image.open(self.paths[index % len(self.paths)]).convert("RGB")
        return [view(image) for view in self.views]


def one_thread(worker: int) -> None:
    """For DataLoader workers: as many of them as there are cores already."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
