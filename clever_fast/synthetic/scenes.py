"""A scene: background, clutter, one object with a shadow, light, lens and sensor."""

import io

import numpy as np
from PIL import Image, ImageFilter

from clever_fast.synthetic.shapes import SHAPES, mask
from clever_fast.synthetic.textures import TEXTURES, colours, fractal, greys, surface

LABELS = {
    "material": tuple(TEXTURES),
    "texture": tuple(TEXTURES),
    "shape": tuple(SHAPES),
}  # kind of label -> its classes, sorted


def photograph(seed: int, split: str, label: str, index: int, *, kind: str, size: int, aspect: float = 1.0) -> bytes:
    """A JPEG file of class `label`, a pure function of the arguments.

    Args:
        seed, split, label, index: which image.
        kind: what the label is about: "material", a texture close up under even light; "texture", that of an
            object in a scene; "shape", that of the object.
        size: shorter side in pixels.
        aspect: longer side over shorter side; a quarter of the images is upright.
    """
    rng = np.random.default_rng([seed, *split.encode(), LABELS[kind].index(label), index])
    longer = round(size * aspect)
    shape = (longer, size) if rng.random() < 0.25 else (size, longer)
    texture, outline = (rng.choice(list(names)) for names in (TEXTURES, SHAPES))
    if kind == "material":
        lit = surface(rng, shape, label, greys) * rng.uniform(0.9, 1.1)
        pixels = (lit.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    elif kind == "texture":
        pixels = scene(rng, shape, label, outline, radius=rng.uniform(0.6, 1.0), angle=rng.uniform(0, 2 * np.pi))
    else:  # upright within 30 degrees: a turned square would be another shape to most people
        pixels = scene(rng, shape, texture, label, radius=rng.uniform(0.25, 0.42), angle=rng.uniform(-0.5, 0.5))
    image = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.5)))  # the lens
    sensor = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(1, 5), (*shape, 3))
    file = io.BytesIO()
    Image.fromarray(sensor.round().clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(70, 96)))
    return file.getvalue()


def scene(rng: np.random.Generator, shape: tuple[int, int], texture: str, outline: str, *, radius: float, angle: float):
    """A (H, W, 3) uint8 scene around one object. `radius` is in shorter sides."""
    short, centre = min(shape), rng.uniform(0.35, 0.65, 2) * shape[::-1]
    image = clutter(rng, shape)
    squeeze = rng.uniform(0.75, 1)
    covered = mask(shape, outline, centre, radius * short, angle, squeeze)[..., None]
    offset = rng.uniform(-0.06, 0.06, 2) * short
    shadow = _blurred(mask(shape, outline, centre + offset, radius * short, angle, squeeze), 0.03 * short)[..., None]
    down, right = np.gradient(_blurred(covered[..., 0], 0.06 * short))
    relief = 4 * (down * offset[1] + right * offset[0]) / max(1, np.hypot(*offset))
    lit = surface(rng, shape, texture, colours) * np.clip(1 + relief, 0.5, 1.5)[..., None].astype(np.float32)
    image = image * (1 - rng.uniform(0.2, 0.6) * shadow) * (1 - covered) + lit * covered
    y, x = np.meshgrid(*(np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in shape), indexing="ij")
    slope = rng.normal(0, 0.25, 2)
    light = rng.uniform(0.7, 1.15) * (1 + slope[0] * x + slope[1] * y + 0.08 * fractal(rng, shape, 3))
    return (np.clip(image * light[..., None], 0, 1) * 255 + 0.5).astype(np.uint8)


def clutter(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A mottled ground under flat leaves that cover one another, sizes from a power law (dead leaves)."""
    image, names, short = ground(rng, shape), list(SHAPES), min(shape)
    for _ in range(rng.integers(4, 10)):
        radius = short * min(0.5, 0.05 * (1 + rng.pareto(1.5)))
        centre = rng.uniform(0, 1, 2) * shape[::-1]
        leaf = mask(shape, rng.choice(names), centre, radius, rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1))[..., None]
        image = image * (1 - leaf) + colours(rng)[0] * leaf
    return image


def ground(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1], two colours that blend into one another in clouds."""
    first, second = colours(rng)
    blend = np.clip(0.5 + 0.25 * fractal(rng, shape, rng.uniform(1.2, 2.2)), 0, 1)[..., None]
    return first + (second - first) * blend


def _blurred(field: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray((field * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float32) / 255
