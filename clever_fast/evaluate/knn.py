"""Weighted k-NN classification on frozen features, the protocol of DINO."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clever_fast.acceleration import Accelerator
from clever_fast.errors import UserError
from clever_fast.evaluate.features import features, raw_pixels
from clever_fast.methods import Method
from clever_fast.pipelines.reading import Manifest
from clever_fast.recipe import Recipe

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
) -> dict[int, float]:
    """Top-1 accuracy in percent for each k, where neighbours vote with weight exp(cosine similarity / 0.07).

    Args:
        bank: (B, D) float32 features of the labelled images.
        bank_labels: (B,) int64.
        query: (Q, D) float32 features of the images to classify.
        query_labels: (Q,) int64.
        neighbours: the values of k; those above B are left out.
        chunk: queries at once; memory is chunk * B similarities.

    Source: DINO (Caron et al. 2021), appendix; Wu et al. 2018.
    """
    ks = [k for k in neighbours if k <= len(bank)]
    assert ks, f"no k of {neighbours} is within a bank of {len(bank)}"
    classes = int(max(bank_labels.max(), query_labels.max())) + 1
    bank = F.normalize(bank, dim=1)
    correct = torch.zeros(len(ks), dtype=torch.int64, device=bank.device)
    for q, truth in zip(query.split(chunk), query_labels.split(chunk), strict=True):
        similarity, nearest = (F.normalize(q, dim=1) @ bank.T).topk(max(ks), dim=1)
        weight, label = (similarity / TEMPERATURE).exp(), bank_labels[nearest]
        for i, k in enumerate(ks):
            votes = weight.new_zeros(len(q), classes).scatter_add_(1, label[:, :k], weight[:, :k])
            correct[i] += (votes.argmax(1) == truth).sum()
    return {k: 100 * hits / len(query) for k, hits in zip(ks, correct.tolist(), strict=True)}


def few_labels(bank: Manifest, per_class: int) -> Manifest:
    """The first `per_class` images of every class, in the manifest's order, or all of a class that has fewer.

    Raises:
        UserError: per_class is below 1.
    """
    if per_class < 1:
        raise UserError(f"{per_class} labelled images a class cannot vote; give at least 1")
    place = np.zeros(len(bank), dtype=np.int64)  # of each image within its class
    for label in range(len(bank.classes)):
        of_class = bank.labels == label
        place[of_class] = np.arange(of_class.sum())
    chosen = np.flatnonzero(place < per_class)
    return bank.take(chosen, f"{bank.fingerprint}, {per_class} a class")


def check(bank: Manifest, query: Manifest, neighbours: Sequence[int] = NEIGHBOURS) -> None:
    """Raise UserError where k-NN between two data sets would mean nothing: other classes, or too few images."""
    if bank.classes != query.classes:
        differing = sorted(set(bank.classes) ^ set(query.classes))[:5]
        raise UserError(
            f"{bank.root} and {query.root} hold different classes, {', '.join(differing)} in only one of them; "
            "rename the folders, or name the common ones in a file for --classes"
        )
    if not 1 <= min(neighbours) <= len(bank):
        raise UserError(f"k-NN among {len(bank)} labelled images cannot take k = {list(neighbours)}; give k from 1 on")


def score(
    encode: Callable[[Tensor], Tensor],
    parts: dict[str, slice],
    bank: Manifest,
    query: Manifest,
    size: int,
    machine: Accelerator,
    neighbours: Sequence[int] = NEIGHBOURS,
) -> dict[str, dict[int, float]]:
    """k-NN accuracy in percent by part of the features and k; the data is encoded once for all parts."""
    encoder = encode if isinstance(encode, torch.nn.Module) else None
    was_training = encoder is not None and encoder.training
    if encoder is not None:
        encoder.eval()
    try:
        bank_features, bank_labels = features(encode, bank, size, machine)
        query_features, query_labels = features(encode, query, size, machine)
    finally:
        if was_training:
            encoder.train()
    return {
        name: knn_accuracy(
            bank_features[:, part], bank_labels, query_features[:, part], query_labels, neighbours=neighbours
        )
        for name, part in parts.items()
    }


def compare(
    method: Method,
    recipe: Recipe,
    bank: Manifest,
    query: Manifest,
    machine: Accelerator,
    *,
    neighbours: Sequence[int] = NEIGHBOURS,
) -> dict[str, dict[int, float]]:
    """A trained method's parts, those of the same method before training, and raw pixels."""
    check(bank, query, neighbours)
    torch.manual_seed(recipe.seed)
    untrained = recipe.method.build(recipe.backbone, recipe.drop_path)
    rows = {}
    for prefix, candidate in (("trained", method), ("untrained", untrained)):
        encoder = machine.place(candidate.encoder)
        scores = score(encoder, method.parts(), bank, query, recipe.global_size, machine, neighbours)
        rows |= {f"{prefix} {name}": accuracy for name, accuracy in scores.items()}
    pixels = score(raw_pixels, WHOLE, bank, query, recipe.global_size, machine, neighbours)
    return rows | {"raw pixels": pixels["all"]}
