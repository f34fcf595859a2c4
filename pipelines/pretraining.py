"""Multi-crop batches for pretraining."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np

from clever_fast.errors import UserError
from clever_fast.pipelines import views
from clever_fast.pipelines.decoding import find_broken
from clever_fast.pipelines.loader_options import USUAL, LoaderOptions
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.parameters import Sampler
from clever_fast.pipelines.policies import Policy
from clever_fast.pipelines.read_ahead import encoded
from clever_fast.pipelines.view_batches import DECODED, DeviceView, Drawn, ViewBatches, free_pipelines

MEAN, STD = ([255 * value for value in values] for values in (views.MEAN, views.STD))  # of uint8 RGB


class PretrainingLoader:
    """Endless batches of a policy's crops, from any step on.

    Iterating yields (indices, views): (n,) int64, the manifest's rows, and on a CPU an array (crops * n, S, S, 3) for
    every run of crops of one size, crop-major and normalised; on a GPU a `DeviceView` for each view of the policy. They
    stay valid for as long as they are kept.

    batch_size: over all processes. start_step: global step of the first batch, in epoch start_step // steps_per_epoch.
    dtype: of the views on a CPU, float32 or float16. stream: as of `ViewBatches`.
    partial: an epoch's last batch may be smaller, see Sampler.
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
        options: LoaderOptions = USUAL,
        device_id: int | None = None,
        dtype: str = "float16",
        start_step: int = 0,
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
        self._device_id = device_id
        self._options: dict[str, Any] = {
            "seed": seed,
            "batch_size": batch_size // world_size,
            "options": options,
            "device_id": device_id,
            "dtype": dtype,
            "in_files": manifest.in_files,
            "reserve": _usual_size(manifest) if options.preallocate else (0, 0),
            "stream": stream or (lambda: None),
        }
        self._batches: ViewBatches | None = None

    def __iter__(self) -> Iterator[tuple[np.ndarray, list[np.ndarray] | list[DeviceView]]]:
        while True:
            indices = self.sampler.indices(self._step)
            views = self._next()
            self._step += 1
            yield indices, views

    def close(self) -> None:
        """Frees the pipeline's threads and memory."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
            free_pipelines()

    def _next(self) -> list:
        while True:
            if self._batches is None:
                self._batches = ViewBatches(self._policy.views, self._drawn(self._step), **self._options)
            try:
                return next(self._batches)
            except (RuntimeError, OSError) as error:  # the pipeline is beyond use from here on
                self.close()
                if isinstance(error, ConnectionError) or not self._replace_broken():
                    raise error

    def _drawn(self, start: int) -> Iterator[tuple[list[np.ndarray], Drawn]]:
        """What `ViewBatches` takes, from a step on."""
        sampler, images = self.sampler, self._images
        files = encoded(self._manifest, (images(sampler.indices(step)) for step in count(start)))
        for step in count(start):
            indices = sampler.indices(step)
            yield next(files), sampler.parameters(indices, sampler.epoch(step), images=images(indices))

    def _images(self, indices: np.ndarray) -> np.ndarray:
        if not self._substitutes:
            return indices
        return np.array([self._substitutes.get(int(i), int(i)) for i in indices])

    def _replace_broken(self) -> bool:
        """Looks for broken files in this batch and in those that were being prepared; True if there were any."""
        steps = range(self._step, self._step + self._options["options"].prefetch + DECODED + 1)
        rows = {int(row) for step in steps for row in self._images(self.sampler.indices(step))}
        broken = find_broken(self._manifest.read, sorted(rows), self._device_id)
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


def _usual_size(manifest: Manifest) -> tuple[int, int]:
    """Width and height in pixels that 99 % of the images do not exceed."""
    width, height = np.percentile(manifest.sizes, 99, axis=0)
    return int(width), int(height)
