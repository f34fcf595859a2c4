"""The policies with albumentations and OpenCV, composed as lightly-train 0.18 does: another loader to be compared with.

The crop is resized by OpenCV's INTER_AREA (bilinear without antialiasing where it enlarges); the jitter has its four
steps in a random order, as torchvision's. Decodes with torchvision.io. albumentations is not among this project's
dependencies: pip install albumentations.
"""

from __future__ import annotations

from pathlib import Path

import albumentations as A
import cv2
import torch
from albumentations.pytorch.transforms import ToTensorV2
from torch.utils.data import Dataset
from torchvision.io import decode_image

from clever_fast.pipelines import augmentations as ours
from clever_fast.pipelines.policies import Policy
from clever_fast.pipelines.views import MEAN, STD


def albumentations_views(policy: Policy) -> list[A.Compose]:
    """One transform per crop, from a uint8 HWC array to a normalised float32 tensor (3, S, S)."""
    composed = []
    for view in policy.views:
        crop = A.RandomResizedCrop((view.size, view.size), view.scale, interpolation=cv2.INTER_AREA)
        steps = [crop, A.HorizontalFlip(p=0.5), *map(_transform, view.augmentations), A.Normalize(MEAN, STD)]
        composed += [A.Compose([*steps, ToTensorV2()])] * view.count
    return composed


def _transform(augmentation) -> A.BasicTransform:
    match augmentation:
        case ours.Rotation(degrees):
            return A.Rotate(degrees, interpolation=cv2.INTER_NEAREST, border_mode=cv2.BORDER_CONSTANT, p=1)
        case ours.ColorJitter(brightness, contrast, saturation, hue, probability):
            return A.ColorJitter(brightness, contrast, saturation, hue, p=probability)
        case ours.Grayscale(probability):
            return A.ToGray(p=probability)
        case ours.GaussianBlur(probability, sigma):
            return A.GaussianBlur(blur_limit=0, sigma_limit=sigma, p=probability)
        case ours.Solarize(probability):
            return A.Solarize(threshold_range=(0.5, 0.5), p=probability)
    raise TypeError(f"no counterpart of {augmentation} in albumentations")


class AlbumentationsCrops(Dataset):
    """All crops of an image that is decoded once."""

    def __init__(self, paths: list[Path], length: int, policy: Policy):
        self.paths, self.length, self.views = paths, length, albumentations_views(policy)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        image = decode_image(str(self.paths[index % len(self.paths)]), "RGB").permute(1, 2, 0).numpy()
        return [view(image=image)["image"] for view in self.views]
