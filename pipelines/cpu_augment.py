"""The views of decoded images on a CPU: threads that share the images of a batch and write into its memory.

DALI's operators take two to ten times as long there, and at each of them its threads wait for one another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from clever_fast.pipelines.views import Canvas, CentralView, View, size_runs


class CpuViews:
    """Makes views of images with `threads` threads. field: of elastic deformations, at every pixel; None without."""

    def __init__(self, views: Sequence[View | CentralView], field: np.ndarray | None, threads: int, dtype: str):
        self._crops = [(view, Canvas(view.size, field)) for view in views for _ in range(view.count)]
        self._runs, self._dtype = size_runs(views), np.dtype(dtype)
        self._memory = Memory()
        # torch, Pillow and OpenCV release the interpreter's lock, so the threads run side by side
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="views")

    def begin(self, images: Sequence, drawn: list[dict[str, np.ndarray]]) -> Callable[[], list[np.ndarray]]:
        """Starts on a batch of uint8 HWC images; what it returns waits for the views.

        drawn: each crop's parameters, (n, ...) each. The views are normalised, an array (crops * n, S, S, 3) for every
        run of crops of one size, crop-major.
        """
        n = len(images)
        made = [self._memory.array((crops * n, size, size, 3), self._dtype) for size, crops in self._runs]
        places = [batch[crop * n :][:n] for batch in made for crop in range(len(batch) // n)]
        futures = [self._pool.submit(self._make, np.asarray(images[i]), i, drawn, places) for i in range(n)]

        def wait() -> list[np.ndarray]:
            assert images is not None, "whose memory the threads read"
            for future in futures:
                future.result()
            return made

        return wait

    def _make(self, image: np.ndarray, i: int, drawn: list[dict[str, np.ndarray]], places: list[np.ndarray]) -> None:
        from clever_fast.pipelines.resize import normalize

        for (view, canvas), parameters, place in zip(self._crops, drawn, places, strict=True):
            row = {name: values[i] for name, values in parameters.items()}
            crop = view.crop.on_cpu(image, row, canvas)
            for augmentation in view.augmentations:
                crop = augmentation.on_cpu(crop, row, canvas)
            normalize(crop, place[i])

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Memory:
    """Memory of batches that nobody holds any more, for the next ones: fresh pages cost more than to write them."""

    def __init__(self):
        self._free: dict[int, list[np.ndarray]] = defaultdict(list)  # by bytes

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array without content; its memory is given again once it and all its views are gone."""
        free = self._free[math.prod(shape) * dtype.itemsize]
        memory = free.pop() if free else np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
        return np.asarray(_Lease(memory, free)).view(dtype).reshape(shape)


class _Lease:
    """What an array over lent memory and all its views keep alive: no array, so that numpy does not look past it."""

    def __init__(self, memory: np.ndarray, free: list[np.ndarray]):
        self._memory, self._free = memory, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self):
        self._free.append(self._memory)
