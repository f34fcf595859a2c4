"""The operations of a view, one file each; what they deviate in from torchvision stands in docs/augmentations.md."""

from clever_fast.pipelines.augmentations.blur import GaussianBlur
from clever_fast.pipelines.augmentations.crop import CentralCrop, RandomResizedCrop
from clever_fast.pipelines.augmentations.elastic import Elastic
from clever_fast.pipelines.augmentations.flip import Flip
from clever_fast.pipelines.augmentations.grayscale import Grayscale
from clever_fast.pipelines.augmentations.jitter import ColorJitter
from clever_fast.pipelines.augmentations.quarter_turn import Turn
from clever_fast.pipelines.augmentations.rotation import Rotation
from clever_fast.pipelines.augmentations.solarize import Solarize

__all__ = [
    "CentralCrop",
    "ColorJitter",
    "Elastic",
    "Flip",
    "GaussianBlur",
    "Grayscale",
    "RandomResizedCrop",
    "Rotation",
    "Solarize",
    "Turn",
]
