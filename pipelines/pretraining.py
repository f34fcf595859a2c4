"""Multi-crop batches for pretraining: the graphs for CPU and GPU, and the loader that runs them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from clever_fast.errors import UserError
from clever_fast.pipelines import views
from clever_fast.pipelines.augmentations import Elastic
from clever_fast.pipelines.augmentations.elastic import at_every_pixel, smooth_field
from clever_fast.pipelines.cpu_augment import make_views
from clever_fast.pipelines.dali import Pipeline, fn, pipeline_def, refuse_missing_npp, types
from clever_fast.pipelines.decoding import decode, find_broken
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.parameters import Sampler
from clever_fast.pipelines.policies import Policy
from clever_fast.pipelines.read_ahead import encoded
from clever_fast.pipelines.views import Augmentation, Canvas, View

MEAN, STD = ([255 * value for value in values] for values in (views.MEAN, views.STD))  # of uint8 RGB


def normalize(images, dtype: str):
    """Node of (S, S, 3) NHWC images with ImageNet's mean and standard deviation removed; dtype float16 or float32."""
    kinds = {"float16": types.FLOAT16, "float32": types.FLOAT}
    return fn.crop_mirror_normalize(images, dtype=kinds[dtype], mean=MEAN, std=STD, output_layout="HWC")


def elastic_field(augmentations: Iterable[Augmentation], seed: int, device: str) -> np.ndarray | None:
    """The field that elastic deformations are cut from, as the device takes it; None where there are none."""
    if not any(isinstance(augmentation, Elastic) for augmentation in augmentations):
        return None
    return smooth_field(seed) if device == "gpu" else at_every_pixel(smooth_field(seed))


def pretraining_pipeline(
    policy: Policy,
    source: Callable,
    layout: list[list[str]],
    *,
    seed: int,
    batch_size: int,
    threads: int,
    device_id: int | None,
    dtype: str = "float16",
    in_files: bool = True,
    prefetch: int = 2,
    hw_decoder_load: float = 0.65,
    preallocate: tuple[int, int] = (0, 0),
    affinity: bool = False,
) -> Pipeline:
    """The graph, not yet built: one output per crop, (S, S, 3) normalised.

    source: what external_source calls with the batch's number; it returns the paths (encoded images unless `in_files`)
    and then, for every crop, its parameters in the order of `layout`, the names per crop. batch_size: of this process.
    device_id: None is the CPU.
    """
    device = "cpu" if device_id is None else "gpu"
    views = [view for view in policy.views for _ in range(view.count)]
    field = elastic_field([augmentation for view in views for augmentation in view.augmentations], seed, device)

    @pipeline_def(
        batch_size=batch_size,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=prefetch,
        set_affinity=affinity and device == "gpu",
        enable_conditionals=True,
    )
    def graph():
        files, *arrays = fn.external_source(
            source=source, num_outputs=1 + sum(map(len, layout)), batch=True, batch_info=True
        )
        images = decode(files, device, in_files=in_files, hw_decoder_load=hw_decoder_load, preallocate=preallocate)
        if device == "gpu":
            crops = _nodes(views, layout, field, images, arrays)
        else:
            function = partial(make_views, views, layout, field, threads)
            crops = fn.python_function(
                images, *arrays, function=function, num_outputs=len(views), batch_processing=True, output_layouts="HWC"
            )
            if len(views) == 1:  # then it is no list
                crops = [crops]
        return tuple(normalize(crop, dtype) for crop in crops)

    return graph()


def _nodes(views: list[View], layout: list[list[str]], field: np.ndarray | None, images, arrays: list) -> list:
    """The views of the images as nodes of a GPU graph; the counterpart of on_cpu.make_views."""
    if field is not None:
        field = types.Constant(field, device="gpu", layout="HWC")
    values, crops = iter(arrays), []
    for view, names in zip(views, layout):
        drawn = {name: next(values) for name in names}
        canvas = Canvas(view.size, "gpu", field)
        crop = view.crop.apply(images, drawn, canvas)
        for augmentation in view.augmentations:
            crop = augmentation.apply(crop, drawn, canvas)
        crops.append(crop)
    return crops


class PretrainingLoader:
    """Endless batches of a policy's crops, from any step on.

    Iterating yields (indices, crops): (n,) int64, the manifest's rows, and one DALI TensorList (n, S, S, 3) per crop in
    the order of the views, on the CPU or the GPU, which stay valid for as long as they are kept.

    batch_size: over all processes. start_step: global step of the first batch, in epoch start_step // steps_per_epoch.
    hw_decoder_load, preallocate: of the GPU's decoder, see decoding.decode. affinity: pins DALI's threads near the GPU.
    stream: returns the CUDA stream that will read the next crops; they are then ordered on it and the host waits for
    nothing. Without it the host waits until they are made. partial: an epoch's last batch may be smaller, see Sampler.
    A file that breaks after the manifest was written is replaced by the next readable one, from that very step on and
    for the rest of the run; `replaced` holds its path and the reason.
    """

    def __init__(
        self,
        manifest: Manifest,
        policy: Policy,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 2,
        device_id: int | None = None,
        dtype: str = "float16",
        start_step: int = 0,
        prefetch: int = 2,
        hw_decoder_load: float = 0.65,
        preallocate: tuple[int, int] = (0, 0),
        affinity: bool = False,
        stream: Callable[[], Any] | None = None,
        partial: bool = False,
    ):
        shares = {"rank": rank, "world_size": world_size, "partial": partial}
        self.sampler = Sampler(manifest.sizes, policy.views, seed=seed, batch_size=batch_size, **shares)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.replaced: dict[str, str] = {}
        self._manifest = manifest
        self._policy = policy
        self._substitutes: dict[int, int] = {}
        self._step = start_step
        self._options = {
            "seed": seed,
            "batch_size": batch_size // world_size,
            "threads": threads,
            "device_id": device_id,
            "dtype": dtype,
            "in_files": manifest.in_files,
            "prefetch": prefetch,
            "hw_decoder_load": hw_decoder_load,
            "preallocate": preallocate,
            "affinity": affinity,
        }
        self._stream = stream or (lambda: None)
        self._pipeline: Pipeline | None = None

    def __iter__(self) -> Iterator[tuple[np.ndarray, tuple]]:
        while True:
            indices = self.sampler.indices(self._step)
            crops = self._run()
            self._step += 1
            yield indices, crops

    def close(self) -> None:
        """Frees the pipeline's threads and memory."""
        self._pipeline, frozen = None, gc.get_freeze_count()
        gc.unfreeze()  # a run freezes what is alive, and the pipeline is held by a cycle
        gc.collect()
        if frozen:
            gc.freeze()

    def _run(self) -> tuple:
        while True:
            if self._pipeline is None:
                self._pipeline = self._build()
            try:
                return tuple(self._pipeline.run(self._stream()))
            except (RuntimeError, OSError) as error:  # the pipeline is beyond use from here on
                self.close()
                refuse_missing_npp(error)
                if isinstance(error, ConnectionError) or not self._replace_broken():
                    raise error

    def _build(self) -> Pipeline:
        start, sampler, images = self._step, self.sampler, self._images
        layout = [list(crop) for crop in sampler.parameters(sampler.indices(start), sampler.epoch(start))]

        files = encoded(self._manifest, (images(sampler.indices(step)) for step in count(start)))

        def source(info):
            step = start + info.iteration
            indices = sampler.indices(step)
            crops = sampler.parameters(indices, sampler.epoch(step), images=images(indices))
            return [next(files), *(crop[name] for crop, names in zip(crops, layout) for name in names)]

        pipeline = pretraining_pipeline(self._policy, source, layout, **self._options)
        pipeline.build()
        return pipeline

    def _images(self, indices: np.ndarray) -> np.ndarray:
        if not self._substitutes:
            return indices
        return np.array([self._substitutes.get(int(i), int(i)) for i in indices])

    def _replace_broken(self) -> bool:
        """Looks for broken files in this batch and in those that were being prepared; True if there were any."""
        steps = range(self._step, self._step + self._options["prefetch"] + 1)
        rows = {int(row) for step in steps for row in self._images(self.sampler.indices(step))}
        broken = find_broken(self._manifest.read, sorted(rows), self._options["device_id"])
        for row, reason in broken.items():
            self.replaced[self._manifest.paths[row]] = reason
        unusable = {row for row, path in enumerate(self._manifest.paths) if path in self.replaced}
        if len(unusable) == len(self._manifest):
            raise UserError(f"no readable image is left in {self._manifest.root}")
        for row in unusable:
            substitute = row
            while substitute in unusable:
                substitute = (substitute + 1) % len(self._manifest)
            self._substitutes[row] = substitute
        return bool(broken)
