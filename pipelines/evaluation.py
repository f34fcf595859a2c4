"""Passes over a manifest in order, each image resized, cropped at its centre, and perturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from clever_fast.pipelines.decoding import find_broken
from clever_fast.pipelines.loader_options import USUAL, LoaderOptions
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.parameters import perturbation_parameters
from clever_fast.pipelines.perturbations import ORIG, Perturbation
from clever_fast.pipelines.read_ahead import encoded
from clever_fast.pipelines.view_batches import DECODED, DeviceView, Drawn, ViewBatches, free_pipelines
from clever_fast.pipelines.views import CentralView


class EvaluationLoader:
    """Every image once in each repetition, in the manifest's order; process `rank` takes every world_size-th.

    Iterating yields (indices, images): (n,) int64, the manifest's row plus its length times the repetition, and on a
    CPU an array (n, size, size, 3), normalised; on a GPU a `DeviceView`. batch_size: of this process; the last batch
    may be smaller. A perturbed image is a function of (seed, repetition, row). A file that breaks after the manifest
    was written is left out; `broken` holds its path and the reason. dtype, stream: as of `PretrainingLoader`.
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
        options: LoaderOptions = USUAL,
        device_id: int | None = None,
        dtype: str = "float32",
        rank: int = 0,
        world_size: int = 1,
        stream: Callable[[], Any] | None = None,
    ):
        self.broken: dict[str, str] = {}
        self._manifest, self._perturbation = manifest, perturbation
        self._rows = np.arange(rank, repetitions * len(manifest), world_size)
        interpolation = "bicubic" if perturbation.bicubic else "bilinear"
        self._view, self._seed = CentralView(size, perturbation.augmentations, interpolation), seed
        self._regions = self._view.crop.sample(manifest.sizes, size)
        self._options: dict[str, Any] = {
            "seed": seed,
            "batch_size": batch_size,
            "options": options,
            "device_id": device_id,
            "dtype": dtype,
            "in_files": manifest.in_files,
            "stream": stream or (lambda: None),
        }

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray | DeviceView]]:
        length = self._options["batch_size"]
        batches = [self._rows[i : i + length] for i in range(0, len(self._rows), length)]
        while batches:
            made = ViewBatches([self._view], self._drawn(batches), **self._options)
            try:
                while batches:
                    (images,) = next(made)
                    yield batches.pop(0), images
            except ConnectionError:
                raise
            except (RuntimeError, OSError) as error:  # the pipeline is beyond use from here on
                made.close()
                free_pipelines()
                batches = self._without_broken(batches, error)
            finally:
                made.close()

    def _drawn(self, batches: list[np.ndarray]) -> Iterator[tuple[list[np.ndarray], Drawn]]:
        """What `ViewBatches` takes of batches of rows."""
        batches = list(batches)
        files = encoded(self._manifest, [rows % len(self._manifest) for rows in batches])
        for rows in batches:
            images = rows % len(self._manifest)
            regions = {name: corners[images] for name, corners in self._regions.items()}
            yield next(files), [regions | self._parameters(rows)]

    def _parameters(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The perturbation's parameters, (n, ...) each; a batch may reach from one repetition into the next."""
        if not self._perturbation.draws:
            return {}
        repetition, images = np.divmod(rows, len(self._manifest))
        augmentations, size, seed = self._perturbation.augmentations, self._view.size, self._seed
        drawn = [
            perturbation_parameters(augmentations, size, images[repetition == r], seed=seed, repetition=int(r))
            for r in np.unique(repetition)
        ]
        return {name: np.concatenate([part[name] for part in drawn]) for name in drawn[0]}

    def _read(self, row: int) -> bytes:
        return self._manifest.read(row % len(self._manifest))

    def _without_broken(self, batches: list[np.ndarray], error: RuntimeError) -> list[np.ndarray]:
        rows = [int(row) for batch in batches[: 2 * DECODED + 1] for row in batch]
        broken = find_broken(self._read, rows, self._options["device_id"])
        if not broken:
            raise error
        self.broken |= {self._manifest.paths[row % len(self._manifest)]: reason for row, reason in broken.items()}
        kept = [np.array([row for row in batch if row not in broken], np.int64) for batch in batches]
        return [batch for batch in kept if len(batch)]
