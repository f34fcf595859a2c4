"""Label propagation as DINO's released script computes it: frame by frame, every position against every other.

The yardstick of `clever_fast.evaluate.segmentation.video`, in tests and in `benchmarks.segmentation`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from clever_fast.evaluate.segmentation.clips import Clip
from clever_fast.evaluate.segmentation.maps import normalised
from clever_fast.evaluate.segmentation.masks import read_image, read_mask
from clever_fast.evaluate.segmentation.propagation import Propagation


def neighbourhood(h: int, w: int, radius: int) -> Tensor:
    """(h * w, h * w) float32: 1 where two positions are no farther apart than radius in rows and in columns.

    One pair after another, as the released script marks them, once a clip.
    """
    near = torch.zeros(h, w, h, w)
    for y in range(h):
        for x in range(w):
            for other_y in range(max(0, y - radius), min(h, y + radius + 1)):
                for other_x in range(max(0, x - radius), min(w, x + radius + 1)):
                    near[y, x, other_y, other_x] = 1
    return near.reshape(h * w, h * w)


def label_propagation(target: Tensor, sources: list[Tensor], labels: list[Tensor], mask: Tensor, s: Propagation):
    """Soft labels (C, h, w) of features (D, h, w), from sources (D, h, w) with labels (C, h, w)."""
    n, positions = len(sources), target[0].numel()
    target = F.normalize(target.flatten(1).T, dim=1)
    context = F.normalize(torch.stack(sources).flatten(2), dim=1)
    affinity = torch.exp(torch.bmm(target.unsqueeze(0).repeat(n, 1, 1), context) / s.temperature)
    affinity *= mask
    affinity = affinity.transpose(2, 1).reshape(-1, positions)  # sources, targets
    least = torch.topk(affinity, dim=0, k=s.neighbours).values.min(dim=0).values
    affinity[affinity < least] = 0
    affinity = affinity / affinity.sum(dim=0, keepdim=True)
    segments = torch.stack(labels).flatten(2).permute(1, 0, 2).flatten(1)  # C, sources
    return (segments @ affinity).unflatten(1, labels[0].shape[1:])


def propagate(features: Iterator[Tensor], labels: Tensor, settings: Propagation) -> Iterator[Tensor]:
    """The same as `evaluate.propagation.propagate`."""
    first = next(features)
    mask = neighbourhood(*first.shape[1:], settings.radius).to(first.device)
    recent = deque(maxlen=settings.previous)
    yield labels
    for feature in features:
        sources, known = zip((first, labels), *recent, strict=True)
        found = label_propagation(feature, list(sources), list(known), mask, settings)
        recent.append((feature, found))
        yield found


def segment(
    clip: Clip, maps: Callable[[Tensor], Tensor], size: tuple[int, int], settings: Propagation
) -> Iterator[np.ndarray]:
    """Masks (H, W) uint8 of every frame, as `evaluate.video.segment` yields them."""
    first = read_mask(clip.first_mask)
    features = (maps(normalised([read_image(frame)], size))[0] for frame in clip.frames)
    start = next(features)
    h, w = start.shape[1:]
    coarse = torch.from_numpy(np.array(Image.fromarray(first).resize((w, h), Image.Resampling.NEAREST)))
    labels = F.one_hot(coarse.long(), int(first.max()) + 1).permute(2, 0, 1).float().to(start.device)
    soft = propagate((feature for some in ([start], features) for feature in some), labels, settings)
    next(soft)
    yield first
    for one in soft:
        scores = F.interpolate(one[None], scale_factor=size[0] / h, mode="bilinear", align_corners=False)[0]
        for channel in scores:
            if channel.max() > 0:
                channel -= channel.min().clone()
                channel /= channel.max().clone()
        mask = scores.max(0).indices.cpu().numpy().astype(np.uint8)
        yield np.array(Image.fromarray(mask).resize(first.shape[::-1], Image.Resampling.NEAREST))
