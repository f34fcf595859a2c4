"""Weighted k-NN classification on frozen features, the protocol of DINO."""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from clever_fast import distributed
from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.errors import UserError
from clever_fast.evaluate import labelled
from clever_fast.evaluate.features import features, raw_pixels
from clever_fast.evaluate.results import Row
from clever_fast.pipelines.manifest import Manifest

TEMPERATURE = 0.07
NEIGHBOURS = (10, 20, 100, 200)
WHOLE = {"all": slice(None)}


@torch.no_grad()
def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    query: Tensor,
    query_labels: Tensor,
    *,
    neighbours: Sequence[int] = NEIGHBOURS,
    chunk: int = 1024,
    bank_chunk: int = 65536,
) -> dict[int, float]:
    """Top-1 accuracy in percent for each k, where neighbours vote with weight exp(cosine similarity / 0.07).

    Args:
        bank: (B, D) float32 features of the labelled images.
        bank_labels: (B,) int64.
        query: (Q, D) float32 features of the images to classify; with several ranks, all of them on each.
        query_labels: (Q,) int64.
        neighbours: the values of k; those above B are left out.
        chunk, bank_chunk: queries and labelled images at once. Beside a normalised copy of the bank, memory is
            chunk * bank_chunk similarities, however many images there are.

    Source: DINO (Caron et al. 2021), appendix; Wu et al. 2018.
    """
    ks = [k for k in neighbours if k <= len(bank)]
    assert ks, f"no k of {neighbours} is within a bank of {len(bank)}"
    classes = int(max(bank_labels.max(), query_labels.max())) + 1
    bank = F.normalize(bank, dim=1)
    mine = slice(distributed.rank(), None, distributed.world_size())
    correct = torch.zeros(len(ks), dtype=torch.int64, device=bank.device)
    for q, truth in zip(query[mine].split(chunk), query_labels[mine].split(chunk), strict=True):
        similarity, nearest = _nearest(F.normalize(q, dim=1), bank, max(ks), bank_chunk)
        weight, label = (similarity / TEMPERATURE).exp(), bank_labels[nearest]
        for i, k in enumerate(ks):
            votes = weight.new_zeros(len(q), classes).scatter_add_(1, label[:, :k], weight[:, :k])
            correct[i] += (votes.argmax(1) == truth).sum()
    if dist.is_initialized():
        dist.all_reduce(correct)
    return {k: 100 * hits / len(query) for k, hits in zip(ks, correct.tolist(), strict=True)}


def _nearest(query: Tensor, bank: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """The k largest scalar products of each query (Q, D) with the bank (B, D), descending, and their rows: (Q, k)."""
    best, rows = query.new_empty(len(query), 0), torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
    for start in range(0, len(bank), chunk):
        products = query @ bank[start : start + chunk].T
        values, places = products.topk(min(k, products.shape[1]), dim=1)
        best, rows = torch.cat([best, values], 1), torch.cat([rows, places + start], 1)
        if best.shape[1] > k:
            best, kept = best.topk(k, dim=1)
            rows = rows.gather(1, kept)
    return best, rows


def check(bank: Manifest, query: Manifest, neighbours: Sequence[int]) -> None:
    """Raise UserError where k-NN between two data sets would mean nothing: other classes, or too few images."""
    labelled.check(bank, query)
    check_neighbours(neighbours, len(bank))


def check_neighbours(neighbours: Sequence[int], images: int) -> None:
    """Raise UserError for a k that is below 1 or above the number of labelled images."""
    if not neighbours or not 1 <= min(neighbours) <= max(neighbours) <= images:
        raise UserError(
            f"k-NN among {images} labelled images cannot take k = {list(neighbours)}; give k from 1 to that"
        )


def fitting(images: int) -> tuple[int, ...]:
    """The published values of k that so many labelled images allow; all of them if they are fewer."""
    return tuple(k for k in NEIGHBOURS if k <= images) or (images,)


def score(
    encode: Callable[[Tensor], Tensor],
    parts: dict[str, slice],
    bank: Manifest,
    query: Manifest,
    size: int,
    accelerator: Accelerator,
    neighbours: Sequence[int] = NEIGHBOURS,
) -> dict[str, dict[int, float]]:
    """k-NN accuracy in percent by part of the features and k; the data is encoded once for all parts."""
    bank_features, bank_labels = features(encode, bank, size, accelerator)
    query_features, query_labels = features(encode, query, size, accelerator)
    return {
        name: knn_accuracy(
            bank_features[:, part], bank_labels, query_features[:, part], query_labels, neighbours=neighbours
        )
        for name, part in parts.items()
    }


def compare(
    encoders: dict[str, TrainedEncoder],
    bank: Manifest,
    query: Manifest,
    accelerator: Accelerator,
    *,
    neighbours: Sequence[int] | None = None,
    labels: Sequence[int | None] = (None,),
) -> list[Row]:
    """The parts of several encoders and raw pixels, with all labelled images or the first few of each class.

    The data is encoded once for each encoder. neighbours: None for the published ones that the images allow.
    """
    labelled.check(bank, query)
    for count in labels:
        few = len(bank) if count is None else len(labelled.first_of_each_class(bank.labels, count))
        check_neighbours(neighbours or fitting(few), few)
    size = next(iter(encoders.values())).size
    candidates = [
        (f"{name} {part}", accelerator.place(encoder.network), channels)
        for name, encoder in encoders.items()
        for part, channels in encoder.parts.items()
    ]
    rows, encoded = [], None
    for name, encode, channels in [*candidates, ("raw pixels", raw_pixels, slice(None))]:
        if encoded != encode:
            encoded = encode
            (x, y), (q, truth) = (features(encode, data, size, accelerator) for data in (bank, query))
        for count in labels:
            few = slice(None) if count is None else labelled.first_of_each_class(y.cpu().numpy(), count)
            voters = x[few, channels], y[few]
            ks = neighbours or fitting(len(voters[1]))
            accuracy = knn_accuracy(*voters, q[:, channels], truth, neighbours=ks)
            known = {"features": name, "labels": count or "all", "images": len(voters[1])}
            rows += [known | {"k": k, "accuracy": value} for k, value in accuracy.items()]
    return rows
