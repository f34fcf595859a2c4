"""Features of a whole data set, computed once and shared by all parts and protocols."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from clever_fast import distributed
from clever_fast.acceleration import Accelerator
from clever_fast.bar import images_bar
from clever_fast.data import EvaluationBatches
from clever_fast.ops import selection
from clever_fast.pipelines.reading import Manifest

PIXELS = 32  # raw pixels are compared at 32 x 32, whatever the crop size


@torch.no_grad()
def features(
    encode: Callable[[Tensor], Tensor], manifest: Manifest, size: int, machine: Accelerator, *, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """Encode every readable image at `size` px: (features (n, D) float32, labels (n,) int64), on the device.

    Every rank encodes its share and all ranks get the whole; n leaves out files that broke since they were indexed.
    """
    indices, rows = [], []
    batches = EvaluationBatches(manifest, size, batch_size, machine)
    share = len(manifest) // distributed.world_size()
    with images_bar("features", share, shown=distributed.is_main()) as advance:
        for index, images in batches:
            with machine.autocast(), selection.use(machine.kernels), torch.compiler.set_stance("force_eager"):
                rows.append(encode(images).float())
            indices.append(index)
            for _ in index:
                advance()
    for path, reason in batches.broken.items():
        print(f"left out, unreadable since it was indexed: {path} ({reason})")
    index, feature = torch.cat(indices).to(machine.device), torch.cat(rows)
    if dist.is_initialized():
        index, feature = _gather(index), _gather(feature)
    order = index.argsort()
    return feature[order], torch.from_numpy(manifest.labels).to(machine.device)[index[order]]


def raw_pixels(images: Tensor) -> Tensor:
    """Images (N, 3, S, S) as feature vectors, the baseline that needs no network."""
    return torch.nn.functional.adaptive_avg_pool2d(images.float(), PIXELS).flatten(1)


def _gather(rows: Tensor) -> Tensor:
    """Concatenate the ranks' rows, of which they may have different numbers."""
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = int(max(counts))
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return torch.cat([part[: int(count)] for part, count in zip(gathered, counts, strict=True)])
