"""Features of a whole data set, computed once and shared by all parts and protocols."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clever_fast import distributed
from clever_fast.accelerator import Accelerator
from clever_fast.data import EvaluationBatches
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.ops import selection
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.perturbations import ORIG, Perturbation
from clever_fast.progress import images_bar

PIXELS = 32  # raw pixels are compared at 32 x 32, whatever the crop size
BLOCKS = 4  # of a ViT whose class tokens a linear classifier sees

Encode = Callable[[Tensor], Tensor]
Labelled = tuple[Tensor, Tensor]  # features (n, D) float32 and labels (n,) int64, on the device


def features(
    encode: Encode,
    manifest: Manifest,
    size: int,
    accelerator: Accelerator,
    *,
    batch_size: int = 256,
    perturbation: Perturbation = ORIG,
) -> Labelled:
    """Encode every readable image at `size` px: (features (n, D) float32, labels (n,) int64), on the device.

    Every rank encodes its share and all ranks get the whole; n leaves out files that broke since they were indexed.
    """
    (found,) = repeated_features(encode, manifest, size, accelerator, perturbation, batch_size=batch_size)
    return found


@torch.no_grad()
def repeated_features(
    encode: Encode,
    manifest: Manifest,
    size: int,
    accelerator: Accelerator,
    perturbation: Perturbation,
    *,
    repetitions: int = 1,
    seed: int = 0,
    batch_size: int = 256,
) -> list[Labelled]:
    """As `features`, once for every repetition of a perturbation: a function of (seed, repetition, image).

    What does not depend on chance is not repeated.
    """
    repetitions = repetitions if perturbation.draws else 1
    batches = EvaluationBatches(
        manifest, size, batch_size, accelerator, perturbation=perturbation, repetitions=repetitions, seed=seed
    )
    indices, rows = [], []
    share = repetitions * len(manifest) // distributed.world_size()
    bar = images_bar(f"features, {perturbation.name}", share, shown=distributed.is_main())
    with bar as advance, _evaluating(encode):
        for index, images in batches:
            with (
                accelerator.autocast(),
                selection.use(accelerator.execution.kernels),
                torch.compiler.set_stance("force_eager"),
            ):
                rows.append(encode(images).float())
            indices.append(index)
            advance(len(index))
    if distributed.is_main():
        for path, reason in batches.broken.items():
            print(f"left out, unreadable since it was indexed: {path} ({reason})")
    index, feature = torch.cat(indices).to(accelerator.device), torch.cat(rows)
    if dist.is_initialized():
        index, feature = _gather(index), _gather(feature)
    order = index.argsort()
    index, feature = index[order], feature[order]
    labels = torch.from_numpy(manifest.labels).to(accelerator.device)[index % len(manifest)]
    counts = torch.bincount(index // len(manifest), minlength=repetitions).tolist()
    return list(zip(feature.split(counts), labels.split(counts), strict=True))


def raw_pixels(images: Tensor) -> Tensor:
    """Images (N, 3, S, S) as feature vectors, the baseline that needs no network."""
    return nn.functional.adaptive_avg_pool2d(images.float(), PIXELS).flatten(1)


def for_linear(encoder: TrainedEncoder) -> TrainedEncoder:
    """What a linear classifier sees, (N, D'); the last D channels are the encoder's own features.

    Of a ViT that is the class tokens of the last four blocks after the final norm, side by side. As in the released
    code a part is taken of the last block alone: one that begins at channel 0 (IR) keeps the blocks before it, so "-IR"
    only drops the last block's EF channels; any other (EF) is those channels.
    """
    network = encoder.network
    if not (hasattr(network, "forward_intermediates") and hasattr(network, "cls_token")):
        return encoder
    tokens = ClassTokens(network, min(BLOCKS, len(network.blocks)))
    before, parts = tokens.embed_dim - network.embed_dim, {}
    for name, part in encoder.parts.items():
        start, stop, _ = part.indices(network.embed_dim)
        parts[name] = slice(before + start if start else 0, before + stop)
    return encoder.replace(network=tokens, parts=parts)


class ClassTokens(nn.Module):
    """The class tokens of a timm ViT's last blocks, each after the final norm: (N, blocks * D)."""

    def __init__(self, network: nn.Module, blocks: int):
        super().__init__()
        self.network, self.blocks, self.embed_dim = network, blocks, blocks * network.embed_dim

    def forward(self, images: Tensor) -> Tensor:
        found = self.network.forward_intermediates(
            images, indices=self.blocks, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
        )
        return torch.cat([prefix[:, 0] for _, prefix in found], dim=1)


@contextmanager
def _evaluating(encode: Encode) -> Iterator[None]:
    """A network in evaluation mode for as long as this lasts."""
    was_training = isinstance(encode, nn.Module) and encode.training
    if was_training:
        encode.eval()
    try:
        yield
    finally:
        if was_training:
            encode.train()


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
