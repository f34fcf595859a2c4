"""Passes over a manifest in order, each image resized, cropped at its centre, and perturbed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from clever_fast.pipelines.cpu_augment import perturb
from clever_fast.pipelines.dali import Pipeline, fn, pipeline_def, refuse_missing_npp, types
from clever_fast.pipelines.decoding import decode, find_broken
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.parameters import perturbation_parameters
from clever_fast.pipelines.perturbations import ORIG, Perturbation
from clever_fast.pipelines.pretraining import elastic_field, normalize
from clever_fast.pipelines.read_ahead import encoded
from clever_fast.pipelines.views import Canvas

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
    source: Callable,
    names: list[str],
    perturbation: Perturbation,
    *,
    size: int,
    seed: int,
    batch_size: int,
    threads: int,
    device_id: int | None,
    dtype: str,
    in_files: bool = True,
) -> Pipeline:
    """The graph, not yet built.

    source: called with the batch's number; returns paths, starts, ends and the parameters of the perturbation, whose
    names are `names`.
    """
    device = "cpu" if device_id is None else "gpu"
    field = elastic_field(perturbation.augmentations, seed, device)

    @pipeline_def(
        batch_size=batch_size,
        num_threads=threads,
        device_id=device_id,
        prefetch_queue_depth=2,
        enable_conditionals=True,
    )
    def graph():
        files, start, end, *drawn = fn.external_source(
            source=source, num_outputs=3 + len(names), batch=True, batch_info=True
        )
        images = fn.resize(
            decode(files, device, in_files=in_files),
            size=(size, size),
            roi_start=start,
            roi_end=end,
            interp_type=types.INTERP_CUBIC if perturbation.bicubic else types.INTERP_LINEAR,
            antialias=True,
        )
        if device == "gpu":
            canvas = Canvas(size, "gpu", None if field is None else types.Constant(field, device="gpu", layout="HWC"))
            for augmentation in perturbation.augmentations:
                images = augmentation.apply(images, dict(zip(names, drawn)), canvas)
        elif perturbation.augmentations:
            function = partial(perturb, perturbation.augmentations, Canvas(size, "cpu", field), names, threads)
            images = fn.python_function(images, *drawn, function=function, batch_processing=True, output_layouts="HWC")
        return normalize(images, dtype)

    return graph()


class EvaluationLoader:
    """Every image once in each repetition, in the manifest's order; process `rank` takes every world_size-th.

    Iterating yields (indices, images): (n,) int64, the manifest's row plus its length times the repetition, and a DALI
    TensorList (n, size, size, 3), normalised. batch_size: of this process; the last batch may be smaller. A perturbed
    image is a function of (seed, repetition, row). A file that breaks after the manifest was written is left out;
    `broken` holds its path and the reason. stream: as of `PretrainingLoader`.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        size: int,
        batch_size: int,
        perturbation: Perturbation = ORIG,
        repetitions: int = 1,
        seed: int = 0,
        threads: int = 2,
        device_id: int | None = None,
        dtype: str = "float32",
        rank: int = 0,
        world_size: int = 1,
        stream: Callable[[], Any] | None = None,
    ):
        self.broken: dict[str, str] = {}
        self._manifest, self._perturbation = manifest, perturbation
        self._stream = stream or (lambda: None)
        self._rows = np.arange(rank, repetitions * len(manifest), world_size)
        self._regions = centre_regions(manifest.sizes, size)
        self._options = {
            "size": size,
            "seed": seed,
            "batch_size": batch_size,
            "threads": threads,
            "device_id": device_id,
            "dtype": dtype,
            "in_files": manifest.in_files,
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
            except ConnectionError:
                raise
            except (RuntimeError, OSError) as error:  # the pipeline is beyond use from here on
                del pipeline
                gc.collect()
                refuse_missing_npp(error)
                batches = self._without_broken(batches, error)

    def _build(self, batches: list[np.ndarray]) -> Pipeline:
        batches, (starts, ends) = list(batches), self._regions
        names = list(self._parameters(batches[0]))
        files = encoded(self._manifest, [rows % len(self._manifest) for rows in batches])

        def source(info):
            if info.iteration >= len(batches):
                raise StopIteration
            rows = batches[info.iteration]
            images, drawn = rows % len(self._manifest), self._parameters(rows)
            return [next(files), starts[images], ends[images], *(drawn[name] for name in names)]

        pipeline = evaluation_pipeline(source, names, self._perturbation, **self._options)
        pipeline.build()
        return pipeline

    def _parameters(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The perturbation's parameters, (n, ...) each; a batch may reach from one repetition into the next."""
        if not self._perturbation.draws:
            return {}
        repetition, images = np.divmod(rows, len(self._manifest))
        augmentations, size, seed = self._perturbation.augmentations, self._options["size"], self._options["seed"]
        drawn = [
            perturbation_parameters(augmentations, size, images[repetition == r], seed=seed, repetition=int(r))
            for r in np.unique(repetition)
        ]
        return {name: np.concatenate([part[name] for part in drawn]) for name in drawn[0]}

    def _read(self, row: int) -> bytes:
        return self._manifest.read(row % len(self._manifest))

    def _without_broken(self, batches: list[np.ndarray], error: RuntimeError) -> list[np.ndarray]:
        rows = [int(row) for batch in batches[:3] for row in batch]
        broken = find_broken(self._read, rows, self._options["device_id"])
        if not broken:
            raise error
        self.broken |= {self._manifest.paths[row % len(self._manifest)]: reason for row, reason in broken.items()}
        kept = [np.array([row for row in batch if row not in broken], np.int64) for batch in batches]
        return [batch for batch in kept if len(batch)]
