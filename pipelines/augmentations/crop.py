"""RandomResizedCrop as torchvision defines it with the horizontal flip that follows it, and the central crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

TRIES = 10
RATIO = (3 / 4, 4 / 3)
SMALL = 64  # up to this size (CIFAR) the central crop keeps the whole shorter side
LONGEST = 4  # times the shorter side: an image that is resized whole


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random region of the image, resized to the view (antialiased) and mirrored with probability 1/2.

    The area is uniform in `scale` (fractions of the image's), the aspect ratio log-uniform in 3/4..4/3, corners in
    whole pixels. After ten tries that do not fit, the largest centred region of an allowed ratio is taken.
    """

    scale: tuple[float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    draws: ClassVar[int] = 4 * TRIES + 1

    def sample(self, uniforms: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """Regions of images of `sizes` (N, 2), width and height in pixels.

        crop_start, crop_end: (N, 2) float32, (y, x) in pixels. Where start_x > end_x the view is mirrored.
        """
        tries = uniforms[:, :-1].reshape(-1, TRIES, 4)
        width, height = sizes[:, :1].astype(np.float64), sizes[:, 1:].astype(np.float64)
        low, high = self.scale
        area = width * height * (low + (high - low) * tries[..., 0])
        ratio = np.exp(np.log(RATIO[0]) + np.log(RATIO[1] / RATIO[0]) * tries[..., 1])
        w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.argmax(1)[:, None]
        w, h = np.take_along_axis(w, first, 1), np.take_along_axis(h, first, 1)
        # randint(0, room + 1) of torchvision
        x = np.floor(np.take_along_axis(tries[..., 2], first, 1) * (width - w + 1))
        y = np.floor(np.take_along_axis(tries[..., 3], first, 1) * (height - h + 1))

        centred_w = np.minimum(width, np.rint(height * RATIO[1]))
        centred_h = np.minimum(height, np.rint(width / RATIO[0]))
        found = fits.any(1, keepdims=True)
        w, h = np.where(found, w, centred_w), np.where(found, h, centred_h)
        x = np.where(found, x, (width - centred_w) // 2)
        y = np.where(found, y, (height - centred_h) // 2)

        flip = uniforms[:, -1:] < 0.5
        left, right = np.where(flip, x + w, x), np.where(flip, x, x + w)
        return {
            "crop_start": np.concatenate([y, left], 1).astype(np.float32),
            "crop_end": np.concatenate([y + h, right], 1).astype(np.float32),
        }

    def on_cpu(self, image: np.ndarray, parameters, canvas) -> np.ndarray:
        """Like torchvision without a look beyond the region, where a GPU's filter reads on."""
        import cv2

        from clever_fast.pipelines.resize import resize

        (top, left), (bottom, right) = parameters["crop_start"].astype(int), parameters["crop_end"].astype(int)
        region = image[top:bottom, min(left, right) : max(left, right)]
        view = resize(region, canvas.size, canvas.size, self.interpolation)
        return cv2.flip(view, 1) if left > right else view


@dataclass(frozen=True)
class CentralCrop:
    """The image's centre after its shorter side is resized, as Resize and CenterCrop of torchvision leave it."""

    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def sample(self, sizes: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """Regions of images of `sizes` (N, 2), width and height in pixels, that a view of `size` pixels shows.

        crop_start, crop_end: (N, 2) float32, (y, x) in pixels, not whole ones.
        """
        height_width, resized, first = _central(sizes, size)
        pixels = height_width / resized
        return {
            "crop_start": (first * pixels).astype(np.float32),
            "crop_end": ((first + size) * pixels).astype(np.float32),
        }

    def on_cpu(self, image: np.ndarray, parameters, canvas) -> np.ndarray:
        """Resizes all of the image, as torchvision does; of a shape so extreme that this would be long, the region."""
        from clever_fast.pipelines.resize import resize

        size, (height, width) = canvas.size, image.shape[:2]
        _, (resized,), (first,) = _central(np.array([[width, height]]), size)
        if resized.max() > LONGEST * resized.min():
            box = [float(value) for name in ("crop_start", "crop_end") for value in parameters[name][::-1]]
            kind = Image.Resampling[self.interpolation.upper()]
            return np.array(Image.fromarray(image).resize((size, size), kind, box=box))
        top, left = first.astype(int)
        whole = resize(image, *resized.tolist(), self.interpolation)
        return np.ascontiguousarray(whole[top : top + size, left : left + size])


def _central(sizes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 2) each, of y and x: the images' sizes, those that they are resized to, and where the view begins in them.

    The shorter side is resized to 256/224 of `size`, to `size` itself up to 64 pixels.
    """
    shorter = size if size <= SMALL else round(size * 256 / 224)
    height_width = sizes[:, ::-1].astype(np.int64)
    resized = shorter * height_width // height_width.min(axis=1, keepdims=True)
    return height_width, resized, np.rint((resized - size) / 2)
