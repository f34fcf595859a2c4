"""One pass over a manifest in order, each image resized and cropped at its centre."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from clever_fast.pipelines.dali import Pipeline, fn, pipeline_def, types
from clever_fast.pipelines.decoding import decode, find_broken, path_bytes
from clever_fast.pipelines.pretraining import normalize
from clever_fast.pipelines.reading import Manifest

SMALL = 64  # up to this size (CIFAR) the whole shorter side is kept


def centre_regions(sizes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and end (y, x) in pixels, (n, 2) float32 each, of what Resize and CenterCrop of torchvision leave over.

    sizes: (n, 2) width and height. The shorter side is resized to 256/224 of `size`, to `size` itself up to 64 pixels.
    """
    shorter = size if size <= SMALL else round(size * 256 / 224)
    height_width = sizes[:, ::-1].astype(np.int64)
    resized = shorter * height_width // height_width.min(axis=1, keepdims=True)
    pixels = height_width / resized
    first = np.rint((resized - size) / 2)
    return (first * pixels).astype(np.float32), ((first + size) * pixels).astype(np.float32)


def evaluation_pipeline(
    source: Callable, *, size: int, batch_size: int, threads: int, device_id: int | None, dtype: str
) -> Pipeline:
    """The graph, not yet built. source: called with the batch's number, returns paths, starts and ends."""
    device = "cpu" if device_id is None else "gpu"

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=device_id, prefetch_queue_depth=2)
    def graph():
        paths, start, end = fn.external_source(source=source, num_outputs=3, batch=True, batch_info=True)
        images = fn.resize(
            decode(paths, device),
            size=(size, size),
            roi_start=start,
            roi_end=end,
            interp_type=types.INTERP_CUBIC,
            antialias=True,
        )
        return normalize(images, dtype)

    return graph()


class EvaluationLoader:
    """Every image once, in the manifest's order; process `rank` takes every world_size-th.

    Iterating yields (indices, images): (n,) int64, the manifest's rows, and a DALI TensorList (n, size, size, 3),
    normalised. batch_size: of this process; the last batch may be smaller. A file that breaks after the manifest was
    written is left out; `broken` holds its path and the reason. stream: as of `PretrainingLoader`.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        size: int,
        batch_size: int,
        threads: int = 2,
        device_id: int | None = None,
        dtype: str = "float32",
        rank: int = 0,
        world_size: int = 1,
        stream: Callable[[], Any] | None = None,
    ):
        self.broken: dict[str, str] = {}
        self._manifest = manifest
        self._stream = stream or (lambda: None)
        self._rows = np.arange(rank, len(manifest), world_size)
        self._regions = centre_regions(manifest.sizes, size)
        self._options = {
            "size": size,
            "batch_size": batch_size,
            "threads": threads,
            "device_id": device_id,
            "dtype": dtype,
        }

    def __iter__(self) -> Iterator[tuple[np.ndarray, object]]:
        length = self._options["batch_size"]
        batches = [self._rows[i : i + length] for i in range(0, len(self._rows), length)]
        while batches:
            pipeline = self._build(batches)
            try:
                while batches:
                    (images,) = pipeline.run(self._stream())
                    yield batches.pop(0), images
            except RuntimeError as error:  # the pipeline is beyond use from here on
                del pipeline
                gc.collect()
                batches = self._without_broken(batches, error)

    def _build(self, batches: list[np.ndarray]) -> Pipeline:
        batches, (starts, ends) = list(batches), self._regions
        manifest = self._manifest

        def source(info):
            if info.iteration >= len(batches):
                raise StopIteration
            rows = batches[info.iteration]
            return [path_bytes(manifest.root / manifest.paths[row]) for row in rows], starts[rows], ends[rows]

        pipeline = evaluation_pipeline(source, **self._options)
        pipeline.build()
        return pipeline

    def _without_broken(self, batches: list[np.ndarray], error: RuntimeError) -> list[np.ndarray]:
        files = {int(row): self._manifest.root / self._manifest.paths[row] for batch in batches[:3] for row in batch}
        broken = find_broken(files, self._options["device_id"])
        if not broken:
            raise error
        self.broken |= {self._manifest.paths[row]: reason for row, reason in broken.items()}
        kept = [np.array([row for row in batch if row not in broken], np.int64) for batch in batches]
        return [batch for batch in kept if len(batch)]
