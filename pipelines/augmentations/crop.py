"""RandomResizedCrop as torchvision defines it, and the horizontal flip that follows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

TRIES = 10
RATIO = (3 / 4, 4 / 3)


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

    def apply(self, images, parameters, canvas):
        from clever_fast.pipelines.dali import fn, types

        kinds = {"bicubic": types.INTERP_CUBIC, "bilinear": types.INTERP_LINEAR}
        return fn.resize(
            images,
            size=(canvas.size, canvas.size),
            roi_start=parameters["crop_start"],
            roi_end=parameters["crop_end"],
            interp_type=kinds[self.interpolation],
            antialias=True,
        )

    def on_cpu(self, image: Image.Image, parameters, canvas) -> np.ndarray:
        """As `apply`, but like torchvision without a look beyond the region."""
        (top, left), (bottom, right) = parameters["crop_start"].tolist(), parameters["crop_end"].tolist()
        region = image.crop((min(left, right), top, max(left, right), bottom))
        view = region.resize((canvas.size, canvas.size), Image.Resampling[self.interpolation.upper()])
        return np.asarray(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if left > right else view)
