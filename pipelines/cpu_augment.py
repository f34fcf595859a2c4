"""All views of an image on a CPU: one function of Pillow and OpenCV in place of a graph of operators.

DALI's own take two to ten times as long there, and at each of them the threads wait for one another.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from clever_fast.pipelines.views import Augmentation, Canvas, View


def make_views(
    views: list[View], layout: list[list[str]], field: np.ndarray | None, threads: int, images: list, *parameters: list
) -> tuple[list[np.ndarray], ...]:
    """The views of a batch of uint8 HWC images, view by view; `threads` share the images.

    layout: the names of each view's parameters, `parameters` their values, one list over the images each.
    """
    one = partial(_views_of_one, views, layout, field)
    # Pillow and OpenCV release the interpreter's lock, so the threads run side by side
    return tuple(map(list, zip(*_pool(threads).map(one, images, *parameters))))


def perturb(
    augmentations: tuple[Augmentation, ...],
    canvas: Canvas,
    names: list[str],
    threads: int,
    images: list,
    *parameters: list,
) -> list[np.ndarray]:
    """A batch of uint8 HWC images after the augmentations; names and parameters as in `make_views`."""

    def one(image, *values) -> np.ndarray:
        drawn = dict(zip(names, map(np.asarray, values)))
        return _augment(np.asarray(image), augmentations, drawn, canvas)

    return list(_pool(threads).map(one, images, *parameters))


def _views_of_one(views, layout, field, image, *parameters) -> list[np.ndarray]:
    picture, values, crops = Image.fromarray(np.asarray(image)), map(np.asarray, parameters), []
    for view, names in zip(views, layout):
        drawn = {name: next(values) for name in names}
        canvas = Canvas(view.size, "cpu", field)
        crop = view.crop.on_cpu(picture, drawn, canvas)
        crops.append(_augment(crop, view.augmentations, drawn, canvas))
    return crops


def _augment(image: np.ndarray, augmentations: tuple[Augmentation, ...], drawn: dict, canvas: Canvas) -> np.ndarray:
    for augmentation in augmentations:
        image = augmentation.on_cpu(image, drawn, canvas)
    return image


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="views")
