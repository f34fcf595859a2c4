"""Images whose class is known twice, once invariant under rotation and once not, and an encoder that sees both."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from clever_fast.encoders.encoder import TrainedEncoder

SIZE = 32
X, Y = np.meshgrid(*(np.linspace(-1, 1, SIZE),) * 2)
DISC = Y**2 + X**2 < 0.9  # what a rotation about the centre keeps
CENTRE = Y**2 + X**2 < 0.3
CLASSES = {"dull": (-20, 20), "vivid": (20, 40)}  # (how much brighter the centre is, slope from left to right)


def draw(name: str, rng: np.random.Generator) -> Image.Image:
    """A grey image of a class: its centre says which, and so does the slope of its brightness."""
    bright, slope = CLASSES[name]
    image = 128 + bright * np.where(CENTRE, 1, -1) + slope * X + rng.normal(0, 2, (SIZE, SIZE))
    return Image.fromarray(np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))


def write(root: Path, counts: dict[str, int]) -> Path:
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                draw(name, rng).save(root / split / name / f"{i}.png")
    return root


class Moments(nn.Module):
    """Channel 0: the centre's contrast, invariant. Channels 1, 2: the slopes along x and y, which turn with it."""

    embed_dim = 3

    def __init__(self):
        super().__init__()
        ring = DISC & ~CENTRE
        rows = [CENTRE / CENTRE.sum() - ring / ring.sum(), X * DISC / DISC.sum(), Y * DISC / DISC.sum()]
        self.weight = nn.Parameter(torch.tensor(np.stack(rows), dtype=torch.float32).flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        return 20 * images.mean(1).flatten(1) @ self.weight.T


def encoder() -> TrainedEncoder:
    parts = {"all": slice(None), "IR": slice(0, 1), "EF": slice(1, None)}
    return TrainedEncoder(Moments(), parts, SIZE, "moments")
