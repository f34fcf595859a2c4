"""From the loaders to batches: the only file that knows both the pipelines and torch.

On a CPU a batch is the loader's own memory. On a GPU the last op on the crops writes it, in the dtype of the training,
and the host waits for nothing: the pipeline orders its crops on torch's current stream, which waits for them by an
event, and DALI's stream waits for the ops in the same way before it uses the crops' memory again.
DALI is imported when a loader is made: a step on a batch that is there already needs none. Not measured on a GPU.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clever_fast import distributed
from clever_fast.accelerator import Accelerator
from clever_fast.methods import Batch
from clever_fast.ops import deformation, photometry
from clever_fast.options import Recipe
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.perturbations import ORIG, Perturbation
from clever_fast.pipelines.policies import Policy
from clever_fast.pipelines.views import CentralView, View

LABELLED_SCALE = (0.08, 1.0)  # area of the crops that classifiers learn from, torchvision's default


def _place(accelerator: Accelerator, share: tuple[int, int] | None = None) -> dict[str, Any]:
    """What every loader is told of the machine and of its share of the images (rank, of ranks)."""
    rank, world_size = share or (distributed.rank(), distributed.world_size())
    return {
        "rank": rank,
        "world_size": world_size,
        "options": accelerator.execution,
        "device_id": accelerator.device.index,
        "dtype": accelerator.input_dtype,
        "stream": _stream(accelerator.device),
    }


class Batches:
    """A loader of pretraining batches: what `train` asks of one, and what a loader of one's own derives from.

    Iterating yields this rank's batches from the step that it was made for, without end: crops on the device of the
    run, in float32, or float16 under autocast on a GPU (see `Batch`).
    """

    steps_per_epoch: int
    replaced: Mapping[str, str] = MappingProxyType({})  # files that broke after they were indexed, with the reason

    def __iter__(self) -> Iterator[Batch]:
        raise NotImplementedError

    def summary(self) -> str:
        """The data in one line, for the header of a run."""
        return f"batches of {type(self).__qualname__}"

    def samples(self, step: int) -> dict[str, list[Any]]:
        """What a report of a failed step says about the batch of that step."""
        return {}

    def close(self) -> None:
        """Called once, at the end of the run."""


class PretrainingBatches(Batches):
    """This rank's batches, or another `share` (rank, of ranks), step after step from `start_step`, without end."""

    def __init__(
        self,
        manifest: Manifest,
        recipe: Recipe,
        accelerator: Accelerator,
        start_step: int = 0,
        share: tuple[int, int] | None = None,
    ):
        from clever_fast.pipelines.pretraining import PretrainingLoader

        self.labels, self.paths, self._summary = torch.from_numpy(manifest.labels), manifest.paths, manifest.summary()
        self.global_crops = sum(view.count for view in recipe.views.views) - recipe.local_crops
        self._finish = Finish(recipe.views.views, recipe.seed, accelerator)
        self.loader = PretrainingLoader(
            manifest,
            recipe.views,
            seed=recipe.seed,
            batch_size=recipe.batch_size,
            start_step=start_step,
            **_place(accelerator, share),
        )
        self.steps_per_epoch, self.replaced = self.loader.steps_per_epoch, self.loader.replaced

    def __iter__(self) -> Iterator[Batch]:
        for indices, views in self.loader:
            first, *others = self._finish(views)
            rows = self.global_crops * len(indices)
            if rows < len(first):  # the local crops have the size of the global ones
                first, *others = first[:rows], first[rows:]
            yield Batch(first, others[0] if others else None, self.labels[indices])

    def summary(self) -> str:
        return self._summary

    def samples(self, step: int) -> dict[str, list[Any]]:
        """The sample indices and paths of this rank's batch at a step."""
        indices = self.loader.sampler.indices(step).tolist()
        return {"index": indices, "path": [self.paths[i] for i in indices]}

    def close(self) -> None:
        self.loader.close()


class LabelledBatch(NamedTuple):
    """A rank's share of a batch, on the device. A loss is the sum over the labels, divided by `total`.

    images: (n, 3, S, S) channels-last. labels: (m,), of the first m images; the others are there so that all ranks have
    as many, and are counted on another rank. total: the labels of all ranks.
    """

    images: Tensor
    labels: Tensor
    total: int


class LabelledBatches:
    """This rank's share of labelled batches, each image cropped at random and flipped, step after step without end.

    Every image is seen once an epoch, whose last batch may be smaller. batch_size: over all ranks. interpolation: of
    the crops, antialiased.
    """

    def __init__(
        self,
        manifest: Manifest,
        size: int,
        batch_size: int,
        seed: int,
        accelerator: Accelerator,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    ):
        from clever_fast.pipelines.pretraining import PretrainingLoader

        self.labels, self.device = torch.from_numpy(manifest.labels), accelerator.device
        policy = Policy("crop and flip", (View(1, size, LABELLED_SCALE, interpolation=interpolation),))
        self._finish = Finish(policy.views, seed, accelerator)
        self.loader = PretrainingLoader(
            manifest,
            policy,
            seed=seed,
            batch_size=batch_size,
            partial=True,
            **_place(accelerator),
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.loader.steps_per_epoch

    def __iter__(self) -> Iterator[LabelledBatch]:
        for step, (indices, views) in enumerate(self.loader):
            (images,) = self._finish(views)
            own, total = self.loader.sampler.counts(step)
            yield LabelledBatch(images, send(self.labels[indices[:own]], self.device), total)

    def close(self) -> None:
        self.loader.close()


class EvaluationBatches:
    """This rank's share of a data set in every repetition: (indices (n,), images (n, 3, S, S) channels-last).

    An index is the image's row plus the data set's length times the repetition; see EvaluationLoader.
    """

    def __init__(
        self,
        manifest: Manifest,
        size: int,
        batch_size: int,
        accelerator: Accelerator,
        *,
        perturbation: Perturbation = ORIG,
        repetitions: int = 1,
        seed: int = 0,
    ):
        from clever_fast.pipelines.evaluation import EvaluationLoader

        self._finish = Finish([CentralView(size, perturbation.augmentations)], seed, accelerator)
        self.loader = EvaluationLoader(
            manifest,
            size=size,
            batch_size=batch_size,
            perturbation=perturbation,
            repetitions=repetitions,
            seed=seed,
            **_place(accelerator),
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices, view in self.loader:
            (images,) = self._finish([view])
            yield torch.from_numpy(indices), images

    @property
    def broken(self) -> dict[str, str]:
        """Files that were left out because they broke after they were indexed, with the reason."""
        return self.loader.broken


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on the device, for which the host does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class Finish:
    """From what a loader yields of `views` to a tensor for every run of crops of one size.

    The tensors are (crops * n, 3, S, S), crop-major, channels-last, on the accelerator's device.
    """

    def __init__(self, views: Sequence[View | CentralView], seed: int, accelerator: Accelerator):
        self.device, self.dtype = accelerator.device, getattr(torch, accelerator.input_dtype)
        self._field: Tensor | None = None
        self._gain: dict[int, Tensor] = {}  # by the crops' size
        if self.device.type == "cuda":
            self._prepare_elastic(views, seed)

    def __call__(self, views: list[Any]) -> list[Tensor]:
        if self.device.type == "cuda":
            return self._on_device(views)
        return [torch.from_numpy(view).permute(0, 3, 1, 2) for view in views]

    def _prepare_elastic(self, views: Sequence[View | CentralView], seed: int) -> None:
        """Put on the device what all elastic deformations of these views are cut from, if there are any."""
        from clever_fast.pipelines.augmentations.elastic import border_gain
        from clever_fast.pipelines.view_batches import elastic_field

        field = elastic_field(views, seed)
        if field is not None:
            self._field = send(torch.from_numpy(field), self.device)
            self._gain = {v.size: send(torch.from_numpy(border_gain(v.size)), self.device) for v in views}

    def _on_device(self, views: list[Any]) -> list[Tensor]:
        """Of every `DeviceView`, its steps one after the other; the last one writes into the batch."""
        # -1: the pipeline's outputs are ordered on torch's stream already. The stream itself would wait for all that
        # DALI has begun since, which is the next batch.
        crops = [torch.utils.dlpack.from_dlpack(view.crops.as_tensor().__dlpack__(stream=-1)) for view in views]
        crops = [x.transpose(0, 1) if x.ndim == 5 else x[None] for x in crops]  # (count, n, S, S, 3)
        parameters = iter(self._send([array for view in views for _, array in view.steps]))
        batches = []
        for size, run in groupby(zip(views, crops), lambda pair: pair[1].shape[2]):
            same = list(run)
            rows = [len(x) * x.shape[1] for _, x in same]
            batches.append(self._empty(sum(rows), size, self.dtype))
            for (view, x), out in zip(same, batches[-1].split(rows)):
                for op, _ in view.steps[:-1]:
                    x = self._step(op, x, next(parameters))
                photometry(x, next(parameters), out=out)
        # DALI gives memory away in the order of the stream that filled it, whoever still reads it.
        for stream in {view.crops.stream for view in views}:
            torch.cuda.ExternalStream(stream, self.device).wait_stream(torch.cuda.current_stream(self.device))
        return batches

    def _step(self, op: str, crops: Tensor, parameters: Tensor) -> Tensor:
        """An op before the last, from uint8 crops (count, n, S, S, 3) to others."""
        if op == "deformation":
            return deformation(crops, parameters, self._field, self._gain.get(crops.shape[2]))
        out = self._empty(len(crops) * crops.shape[1], crops.shape[2], torch.uint8)
        return photometry(crops, parameters, out=out).permute(0, 2, 3, 1).view_as(crops)

    def _empty(self, rows: int, size: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(rows, size, size, 3, dtype=dtype, device=self.device).permute(0, 3, 1, 2)

    def _send(self, arrays: list[np.ndarray]) -> list[Tensor]:
        """All parameters of a batch in one copy to the device."""
        flat = send(torch.from_numpy(np.concatenate([array.ravel() for array in arrays])), self.device)
        parts = flat.split([array.size for array in arrays])
        return [part.view(array.shape) for part, array in zip(parts, arrays)]


def _stream(device: torch.device) -> Callable[[], Any] | None:
    """Returns torch's current stream of a GPU; None for a CPU."""
    return (lambda: torch.cuda.current_stream(device)) if device.type == "cuda" else None


def identity(manifest: Manifest) -> dict[str, Any]:
    """What a checkpoint remembers of its data: equal for equal files and labels, wherever they lie."""
    return {"images": len(manifest), "classes": len(manifest.classes), "fingerprint": manifest.fingerprint}
