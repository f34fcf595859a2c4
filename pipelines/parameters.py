"""Every random number of the pipeline, drawn outside of it: a view is a pure function of (seed, epoch, index, view).

Philox is a counter-based generator: key (seed, index), counter (epoch, view). Nothing is carried from one draw to the
next, so a batch depends neither on its size, nor on the number of processes or threads, nor on what ran before.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from clever_fast.errors import UserError
from clever_fast.pipelines.augmentations import RandomResizedCrop
from clever_fast.pipelines.views import Augmentation, View

DRAWS = 64  # uniforms reserved for a view: more would change every run's numbers
WORDS = 4  # 64-bit words of one Philox block, one uniform each
SAMPLES, PERMUTATION, PERTURBED = 0, 1, 3  # the streams, in the counter's highest word; 2 is the elastic field's


def generator(seed: int, index: int, epoch: int, stream: int) -> np.random.Generator:
    """The numbers of one sample in one epoch, from view 0 on."""
    return np.random.Generator(np.random.Philox(key=[seed, index], counter=[0, 0, epoch, stream]))


def uniforms(seed: int, indices: np.ndarray, epoch: int, stream: int, views: int) -> np.ndarray:
    """(n, views, DRAWS) float64 in [0, 1): the numbers of each index's `generator`, which takes longer to make."""
    counter, key = np.array([0, 0, epoch, stream], np.uint64), np.array([seed, 0], np.uint64)
    philox = np.random.Philox(key=key)
    state = philox.state | {"state": {"counter": counter, "key": key}}  # an empty buffer
    draw, drawn = np.random.Generator(philox).random, np.empty((len(indices), views, DRAWS))
    for row, index in zip(drawn, indices.tolist()):
        key[1] = index
        philox.state = state
        draw(out=row)
    return drawn


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return generator(seed, 0, epoch, PERMUTATION).permutation(count)


class Sampler:
    """Which images a step sees, and how each of their views is made.

    sizes: (n, 2) width and height of each image in pixels. batch_size: images of one step over all processes. partial:
    an epoch ends with the images that are left over; otherwise they are dropped. Raises UserError for a batch that the
    processes cannot share evenly, or that is larger than the data and would leave nothing.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        views: tuple[View, ...],
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        partial: bool = False,
    ):
        if batch_size < 1 or batch_size % world_size:
            raise UserError(
                f"{world_size} processes cannot share a batch of {batch_size} images: take a multiple of {world_size}"
            )
        if batch_size > len(sizes) and not partial:
            raise UserError(
                f"a batch of {batch_size} is larger than the data ({len(sizes)} readable images): make it smaller"
            )
        for view in views:
            draws = RandomResizedCrop.draws + sum(augmentation.draws for augmentation in view.augmentations)
            assert draws <= DRAWS, f"a view draws {draws} numbers, {DRAWS} are reserved"
        self.sizes = sizes
        self.views = views
        self.seed = seed
        self.steps_per_epoch = -(-len(sizes) // batch_size) if partial else len(sizes) // batch_size
        self.crops = sum(view.count for view in views)
        self._batch_size = batch_size
        self._rank, self._world_size = rank, world_size

    def epoch(self, step: int) -> int:
        """The epoch of a global step."""
        return step // self.steps_per_epoch

    def indices(self, step: int) -> np.ndarray:
        """(n,) int64: the images of this process at a global step, as many for all processes.

        Where a partial batch cannot be shared evenly, the last processes get some of its images again, at the end.
        """
        batch = self._batch(step)
        share = -(-len(batch) // self._world_size)
        return batch[np.arange(self._rank * share, (self._rank + 1) * share) % len(batch)]

    def counts(self, step: int) -> tuple[int, int]:
        """How many of this process's images at a step no process before it has, and the images of the whole step."""
        total = len(self._batch(step))
        share = -(-total // self._world_size)
        return min(max(total - self._rank * share, 0), share), total

    def _batch(self, step: int) -> np.ndarray:
        """The images of all processes."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self._batch_size
        return _permutation(len(self.sizes), self.seed, epoch)[first : first + self._batch_size]

    def parameters(
        self, indices: np.ndarray, epoch: int, *, images: np.ndarray | None = None
    ) -> list[dict[str, np.ndarray]]:
        """For each crop, in the order of the views, its parameters by name, (n, ...) each; see the augmentations.

        images: rows whose sizes count instead of those of `indices`, where an image stands in for another.
        """
        sizes = self.sizes[indices if images is None else images]
        drawn_numbers = uniforms(self.seed, indices, epoch, SAMPLES, self.crops)
        crops = []
        for view in self.views:
            if view.count:
                # crop-major, so that the rows of one crop lie side by side
                block = drawn_numbers[:, len(crops) : len(crops) + view.count].swapaxes(0, 1).reshape(-1, DRAWS)
                drawn = _sample_view(view, block, np.tile(sizes, (view.count, 1)))
                rows = [slice(i * len(indices), (i + 1) * len(indices)) for i in range(view.count)]
                crops += [{name: array[part] for name, array in drawn.items()} for part in rows]
        return crops


def perturbation_parameters(
    augmentations: tuple[Augmentation, ...], size: int, indices: np.ndarray, *, seed: int, repetition: int
) -> dict[str, np.ndarray]:
    """How test images of `size` pixels are perturbed, by name, (n, ...) each: a function of seed, repetition, index."""
    return _sample(augmentations, uniforms(seed, indices, repetition, PERTURBED, 1)[:, 0], size)


def _sample_view(view: View, uniforms: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    drawn = view.crop.sample(uniforms[:, : view.crop.draws], sizes)
    return drawn | _sample(view.augmentations, uniforms[:, view.crop.draws :], view.size)


def _sample(augmentations: tuple[Augmentation, ...], uniforms: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Each augmentation takes its share of the uniforms, one after the other."""
    drawn, used = {}, 0
    for augmentation in augmentations:
        drawn |= augmentation.sample(uniforms[:, used : used + augmentation.draws], size)
        used += augmentation.draws
    return drawn
