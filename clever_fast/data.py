"""From a DALI pipeline to batches: the only file that knows both DALI and torch.

A crop is copied once, when torch concatenates those of a size, because networks read crop-major batches. On a GPU no
host waits for it: the pipeline orders its outputs on torch's current stream, which waits for them by an event, and
DALI's stream waits for the copy in the same way before it uses the crops' memory again.
DALI is imported when a loader is made: a step on a batch that is there already needs none. Not measured on a GPU.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clever_fast import distributed
from clever_fast.accelerator import Accelerator
from clever_fast.methods import Batch
from clever_fast.options import Recipe
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.perturbations import ORIG, Perturbation
from clever_fast.pipelines.policies import Policy
from clever_fast.pipelines.views import View

LABELLED_SCALE = (0.08, 1.0)  # area of the crops that classifiers learn from, torchvision's default


def _place(accelerator: Accelerator, share: tuple[int, int] | None = None) -> dict[str, Any]:
    """What every loader is told of the machine and of its share of the images (rank, of ranks)."""
    rank, world_size = share or (distributed.rank(), distributed.world_size())
    return {
        "rank": rank,
        "world_size": world_size,
        "threads": accelerator.execution.threads,
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
    replaced: ClassVar[dict[str, str]] = {}  # files that broke after they were indexed, with the reason

    def __iter__(self) -> Iterator[Batch]:
        raise NotImplementedError

    def summary(self) -> str:
        """The data in one line, for the header of a run."""
        return f"batches of {type(self).__qualname__}"

    def samples(self, step: int) -> dict[str, list]:
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
        self.loader = PretrainingLoader(
            manifest,
            recipe.views,
            seed=recipe.seed,
            batch_size=recipe.batch_size,
            start_step=start_step,
            prefetch=accelerator.execution.prefetch,
            hw_decoder_load=accelerator.execution.hw_decoder_load,
            preallocate=_usual_size(manifest) if accelerator.execution.preallocate else (0, 0),
            affinity=accelerator.execution.affinity,
            **_place(accelerator, share),
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.loader.steps_per_epoch

    @property
    def replaced(self) -> dict[str, str]:
        """Files that broke after they were indexed, with the reason."""
        return self.loader.replaced

    def __iter__(self) -> Iterator[Batch]:
        for indices, views in self.loader:
            g, l = views[: self.global_crops], views[self.global_crops :]
            yield Batch(_crop_major(g), _crop_major(l) if l else None, self.labels[indices])

    def summary(self) -> str:
        return self._summary

    def samples(self, step: int) -> dict[str, list]:
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
        self.loader = PretrainingLoader(
            manifest,
            Policy("crop and flip", (View(1, size, LABELLED_SCALE, interpolation=interpolation),)),
            seed=seed,
            batch_size=batch_size,
            partial=True,
            **_place(accelerator),
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.loader.steps_per_epoch

    def __iter__(self) -> Iterator[LabelledBatch]:
        for step, (indices, (crop,)) in enumerate(self.loader):
            own, total = self.loader.sampler.counts(step)
            yield LabelledBatch(_crop_major([crop]), send(self.labels[indices[:own]], self.device), total)

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
        for indices, images in self.loader:
            yield torch.from_numpy(indices), _crop_major([images])

    @property
    def broken(self) -> dict[str, str]:
        """Files that were left out because they broke after they were indexed, with the reason."""
        return self.loader.broken


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on the device, for which the host does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _crop_major(views: Sequence[Any]) -> Tensor:
    """DALI's (N, S, S, 3) views -> (V*N, 3, S, S) with channels last in torch's own memory, in one concatenation."""
    # -1: the pipeline's outputs are ordered on torch's stream already. The stream itself would wait for all that DALI
    # has begun since, which is the next batch.
    crops = [torch.from_dlpack(view.as_tensor().__dlpack__(stream=-1)) for view in views]
    batch = torch.cat(crops)
    if batch.is_cuda:
        # DALI gives memory away in the order of the stream that filled it, whoever still reads it.
        for stream in {view.stream for view in views}:
            torch.cuda.ExternalStream(stream, batch.device).wait_stream(torch.cuda.current_stream(batch.device))
    return batch.permute(0, 3, 1, 2)


def _stream(device: torch.device) -> Callable[[], Any] | None:
    """Returns torch's current stream of a GPU; None for a CPU."""
    return (lambda: torch.cuda.current_stream(device)) if device.type == "cuda" else None


def _usual_size(manifest: Manifest) -> tuple[int, int]:
    """Width and height in pixels that 99 % of the images do not exceed."""
    width, height = np.percentile(manifest.sizes, 99, axis=0)
    return int(width), int(height)


def identity(manifest: Manifest) -> dict[str, Any]:
    """What a checkpoint remembers of its data: equal for equal files and labels, wherever they lie."""
    return {"images": len(manifest), "classes": len(manifest.classes), "fingerprint": manifest.fingerprint}
