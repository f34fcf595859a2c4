"""Clips of moving textured objects, and the mask of every frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clever_fast.synthetic.scenes import clutter, ground
from clever_fast.synthetic.shapes import SHAPES, mask
from clever_fast.synthetic.textures import TEXTURES, colours, surface

ASPECT = 16 / 9
STILL = 1  # told apart from the clip of the same index by its seed
PANNED = 1.3  # of the background, over the picture


@dataclass(frozen=True)
class Moving:
    """An object and its path; times are 0 to 1 over a clip."""

    picture: Image.Image  # RGBA, square
    start: np.ndarray  # (x, y) of its centre in pixels
    swing: np.ndarray  # (x, y) pixels that it travels to either side
    phase: float
    turn: tuple[float, float]  # angle at the start and its change, radians

    def at(self, time: float, size: tuple[int, int]) -> Image.Image:
        """The object alone on a picture of (width, height), bicubic."""
        centre = self.start + self.swing * (
            np.sin(2 * np.pi * (0.7 * time + self.phase)) - np.sin(2 * np.pi * self.phase)
        )
        angle, scale = self.turn[0] + self.turn[1] * time, 1 + 0.15 * np.sin(2 * np.pi * time)
        cos, sin, half = np.cos(angle) / scale, np.sin(angle) / scale, self.picture.width / 2
        x, y = centre
        inverse = (cos, sin, half - cos * x - sin * y, -sin, cos, half + sin * x - cos * y)
        return self.picture.transform(size, Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)


def clip(seed: int, index: int, *, frames: int, objects: int, size: int) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Frames (RGB) and masks (H, W) uint8, pure functions of the arguments; later objects cover earlier ones.

    Args:
        seed, index: which clip.
        frames: how many.
        objects: numbered from 1 on.
        size: shorter side in pixels; frames are 16:9.
    """
    rng = np.random.default_rng([seed, index])
    yield from _film(rng, clutter, frames=frames, objects=objects, size=size)


def still(seed: int, index: int, *, size: int) -> tuple[Image.Image, np.ndarray]:
    """One image with nothing but one object on a ground, and its mask (H, W) uint8 of 0 and 1."""
    rng = np.random.default_rng([seed, index, STILL])
    return next(_film(rng, ground, frames=1, objects=1, size=size))


def _film(rng, behind, *, frames: int, objects: int, size: int) -> Iterator[tuple[Image.Image, np.ndarray]]:
    width, height = round(size * ASPECT), size
    wide = (round(height * PANNED), round(width * PANNED))
    background = Image.fromarray((behind(rng, wide).clip(0, 1) * 255).astype(np.uint8))
    begin, end = rng.uniform(0, 1, (2, 2)) * (wide[1] - width, wide[0] - height)
    places = (rng.permutation(objects) + 0.5) / objects
    moving = [_moving(rng, place * width, height, objects) for place in places]
    for number in range(frames):
        time = number / max(1, frames - 1)
        x, y = (begin + (end - begin) * time).round().astype(int)
        picture, labels = background.crop((x, y, x + width, y + height)), np.zeros((height, width), np.uint8)
        for label, thing in enumerate(moving, start=1):
            layer = thing.at(time, (width, height))
            picture.paste(layer, mask=layer.getchannel("A"))
            labels[np.asarray(layer.getchannel("A")) > 127] = label
        noisy = np.asarray(picture, np.float32) + rng.normal(0, 2, (height, width, 3))
        yield Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)), labels


def _moving(rng: np.random.Generator, x: float, height: int, objects: int) -> Moving:
    radius = height * rng.uniform(0.2, 0.3) / max(1, objects / 3) ** 0.5
    side = 2 * int(np.ceil(radius)) + 2
    texture, outline = rng.choice(list(TEXTURES)), rng.choice(list(SHAPES))
    lit = surface(rng, (side, side), texture, colours)
    covered = mask((side, side), outline, (side / 2, side / 2), radius, 0.0, rng.uniform(0.75, 1))
    rgba = np.dstack([lit.clip(0, 1), covered]) * 255
    return Moving(
        picture=Image.fromarray(rgba.round().astype(np.uint8), "RGBA"),
        start=np.array([x, height * rng.uniform(0.35, 0.65)]),
        swing=np.array([0.12, 0.1]) * height * rng.uniform(0.5, 1.5, 2) * rng.choice([-1, 1], 2),
        phase=rng.uniform(),
        turn=(rng.uniform(0, 2 * np.pi), rng.uniform(-1.2, 1.2)),
    )
