"""Feature maps of images for the protocols of segmentation."""

import copy
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.errors import UserError
from clever_fast.models.dense import dense_features
from clever_fast.ops import selection
from clever_fast.pipelines.views import MEAN, STD

Maps = Callable[[Tensor], Tensor]  # images (N, 3, H, W) -> unit-free features (N, D, h, w) float32, on the device


def feature_maps(encoder: TrainedEncoder, part: str, accelerator: Accelerator, *, keys: bool = False) -> Maps:
    """The encoder's dense features, or one part of their channels, as a function of normalised images on any device.

    Raises:
        UserError: the encoder has no such part, or no keys, or keys are asked for in parts.
    """
    if part not in encoder.parts:
        raise UserError(f"--part {part}: {encoder.origin} has the parts {', '.join(encoder.parts)}")
    if keys and not has_keys(encoder):
        raise UserError(f"--features keys: {encoder.origin} has no attention, take --features tokens")
    if keys and part != "all":
        raise UserError(f"--part {part} with keys: each mixes all channels, so take --features tokens for one part")
    network, channels = _rounded(accelerator.place(encoder.network).eval(), accelerator.precision), encoder.parts[part]

    @torch.no_grad()
    def maps(images: Tensor) -> Tensor:
        images = images.to(accelerator.device, memory_format=torch.channels_last)
        with accelerator.autocast(), selection.use(accelerator.execution.kernels):
            return dense_features(network, images, keys=keys)[:, channels].float()

    return maps


def _rounded(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """A copy whose products' weights have the precision that autocast would give them anew at every call."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.to(precision)
    return network


def has_keys(encoder: TrainedEncoder) -> bool:
    return isinstance(encoder.network, VisionTransformer)


def stride(encoder: TrainedEncoder) -> int:
    """Pixels between two positions of the encoder's feature map: a ViT's patch size, 16 or 32 of other networks."""
    side = 64  # a multiple of every backbone's
    was_training = encoder.network.training
    with torch.no_grad():
        positions = dense_features(encoder.network.eval(), torch.zeros(1, 3, side, side)).shape[-1]
    encoder.network.train(was_training)
    return side // positions


def normalised(images: Sequence[Image.Image], size: tuple[int, int]) -> Tensor:
    """RGB images, resized to (height, width) without antialiasing as DINO does, to (N, 3, H, W) float32."""
    pixels = [cv2.resize(np.asarray(image), size[::-1], interpolation=cv2.INTER_LINEAR) for image in images]
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return torch.from_numpy(np.stack(pixels)).float().mul_(1 / (255 * std)).sub_(mean / std).permute(0, 3, 1, 2)
