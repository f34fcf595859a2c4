"""Batches of views from files and drawn parameters: DALI reads and decodes, and on a GPU it also cuts the crops.

What follows the crop is done by threads on a CPU (`cpu_augment`), and on a GPU by two ops of clever_fast.ops, whose
parameters this module hands over with the crops (`device_steps`).
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from clever_fast.pipelines.augmentations import Elastic
from clever_fast.pipelines.augmentations.elastic import at_every_pixel, smooth_field
from clever_fast.pipelines.cpu_augment import CpuViews
from clever_fast.pipelines.dali import Pipeline, fn, pipeline_def, types
from clever_fast.pipelines.decoding import decode
from clever_fast.pipelines.device_steps import device_steps
from clever_fast.pipelines.loader_options import LoaderOptions
from clever_fast.pipelines.views import CentralView, View

Drawn = list[dict[str, np.ndarray]]  # of each crop, in the order of the views, its parameters by name, (n, ...) each
DECODED = 2  # batches that DALI has ready for the threads of a CPU


class DeviceView(NamedTuple):
    """The crops of one view on a GPU, cut and mirrored, and what is still to be done to them.

    crops: DALI's TensorListGPU, (n, count, S, S, 3) uint8, without the second dimension where count is 1. steps: the
    name of an op of clever_fast.ops and its parameters, (count * n, columns) float32, crop-major.
    """

    crops: Any
    steps: list[tuple[str, np.ndarray]]


def elastic_field(views: Sequence[View | CentralView], seed: int) -> np.ndarray | None:
    """The field that elastic deformations are cut from, at every pixel; None where there are none."""
    if any(isinstance(augmentation, Elastic) for view in views for augmentation in view.augmentations):
        return at_every_pixel(smooth_field(seed))
    return None


def view_pipeline(
    views: Sequence[View | CentralView],
    source: Callable,
    *,
    batch_size: int,
    options: LoaderOptions,
    device_id: int | None,
    in_files: bool = True,
    reserve: tuple[int, int] = (0, 0),
) -> Pipeline:
    """The graph, not yet built: on a CPU (device_id None) the decoded images, on a GPU an output for each view.

    source: what external_source calls with the batch's number; it returns the paths (encoded images unless `in_files`)
    and, for a GPU, then the start and end of every crop's region. batch_size: of this process. reserve: width and
    height in pixels that a GPU's decoder has memory for from the start.
    """
    device = "cpu" if device_id is None else "gpu"
    crops = sum(view.count for view in views)

    @pipeline_def(
        batch_size=batch_size,
        num_threads=options.threads,
        device_id=device_id,
        prefetch_queue_depth=options.prefetch if device == "gpu" else DECODED,
        set_affinity=options.affinity and device == "gpu",
    )
    def graph():
        outputs = 1 + 2 * crops if device == "gpu" else 1
        files, *corners = fn.external_source(source=source, num_outputs=outputs, batch=True, batch_info=True)
        images = decode(files, device, in_files=in_files, hw_decoder_load=options.hw_decoder_load, preallocate=reserve)
        if device == "cpu":
            return images
        corner = iter(corners)
        return tuple(cut(view, images, [(next(corner), next(corner)) for _ in range(view.count)]) for view in views)

    return graph()


def cut(view: View | CentralView, images, regions: list[tuple]):
    """Node of a view's crops, (count, S, S, 3), without the first dimension where count is 1."""
    kinds = {"bicubic": types.INTERP_CUBIC, "bilinear": types.INTERP_LINEAR}
    crops = [
        fn.resize(
            images,
            size=(view.size, view.size),
            roi_start=start,
            roi_end=end,
            interp_type=kinds[view.interpolation],
            antialias=True,
        )
        for start, end in regions
    ]
    return fn.stack(*crops) if len(crops) > 1 else crops[0]


class ViewBatches:
    """An iterator over batches of views: on a CPU arrays as of `CpuViews`, on a GPU a `DeviceView` for each view.

    batches: (what `decoding.decode` takes of each image, the crops' parameters), batch after batch. stream: returns the
    CUDA stream that will read the next crops; they are then ordered on it and the host waits for nothing. Without it
    the host waits until they are made. Raises what DALI raises of a file that it cannot read; it is beyond use then.
    """

    def __init__(
        self,
        views: Sequence[View | CentralView],
        batches: Iterator[tuple[list[np.ndarray], Drawn]],
        *,
        seed: int,
        options: LoaderOptions,
        dtype: str,
        device_id: int | None,
        stream: Callable[[], Any] = lambda: None,
        **graph: Any,
    ):
        self._views, self._prefetch, self._stream = views, options.prefetch, stream
        self._drawn: deque[Drawn] = deque()  # of batches that DALI has begun
        self._begun: deque[Callable[[], list[np.ndarray]]] = deque()
        self._cpu = CpuViews(views, elastic_field(views, seed), options.threads, dtype) if device_id is None else None
        drawn, on_gpu = self._drawn, device_id is not None

        def source(info) -> list | tuple:
            files, crops = next(batches)
            drawn.append(crops)
            corners = [crop[name] for crop in crops for name in ("crop_start", "crop_end")] if on_gpu else []
            return [files, *corners]

        self._pipeline: Pipeline | None = view_pipeline(views, source, options=options, device_id=device_id, **graph)
        self._pipeline.build()

    def __iter__(self) -> ViewBatches:
        return self

    def __next__(self) -> list:
        return self._on_gpu() if self._cpu is None else self._on_cpu(self._cpu)

    def _on_gpu(self) -> list[DeviceView]:
        outputs = self._pipeline.run(self._stream())
        crops, made = iter(self._drawn.popleft()), []
        for view, output in zip(self._views, outputs, strict=True):
            drawn = [next(crops) for _ in range(view.count)]
            drawn = {name: np.concatenate([crop[name] for crop in drawn]) for name in drawn[0]}
            count = len(drawn["crop_start"])
            steps = device_steps(view.augmentations)
            made.append(DeviceView(output, [(step.op, step.parameters(drawn, count)) for step in steps]))
        return made

    def _on_cpu(self, views: CpuViews) -> list[np.ndarray]:
        while len(self._begun) < self._prefetch:
            try:
                (images,) = self._pipeline.run()
            except StopIteration:
                break
            self._begun.append(views.begin(images, self._drawn.popleft()))
        if not self._begun:
            raise StopIteration
        return self._begun.popleft()()

    def close(self) -> None:
        """Ends the threads; the pipeline's memory is freed by the next garbage collection, see `free_pipelines`."""
        if self._cpu is not None:
            self._cpu.close()
        self._begun.clear()
        self._pipeline = None


def free_pipelines() -> None:
    """Frees the threads and the memory of pipelines that nobody uses: each is held by a cycle."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()  # a run freezes what is alive
    gc.collect()
    if frozen:
        gc.freeze()
