"""Weighted k-NN classification on frozen features, the protocol of DINO."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from clever_fast.acceleration import Accelerator
from clever_fast.errors import UserError
from clever_fast.evaluate.features import features
from clever_fast.methods import Method
from clever_fast.pipelines.reading import Manifest

TEMPERATURE = 0.07
NEIGHBOURS = (10, 20, 100, 200)


@torch.no_grad()
def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    query: Tensor,
    query_labels: Tensor,
    *,
    neighbours: Sequence[int] = NEIGHBOURS,
    classes: int,
    chunk: int = 1024,
) -> dict[int, float]:
    """Top-1 accuracy in percent for each k, where neighbours vote with weight exp(cosine similarity / 0.07).

    Args:
        bank: (B, D) float32 features of the labelled images.
        bank_labels: (B,) int64.
        query: (Q, D) float32 features of the images to classify.
        query_labels: (Q,) int64.
        neighbours: the values of k; those above B are left out.
        classes: how many classes there are.
        chunk: queries at once; memory is chunk * B similarities.

    Raises:
        UserError: every k is above B.

    Source: DINO (Caron et al. 2021), appendix; Wu et al. 2018.
    """
    ks = [k for k in neighbours if k <= len(bank)]
    if not ks:
        raise UserError(f"k-NN with k {list(neighbours)} needs more than {len(bank)} labelled images; lower k")
    bank = F.normalize(bank, dim=1)
    correct = torch.zeros(len(ks), dtype=torch.int64, device=bank.device)
    for q, truth in zip(query.split(chunk), query_labels.split(chunk), strict=True):
        similarity, nearest = (F.normalize(q, dim=1) @ bank.T).topk(max(ks), dim=1)
        votes = F.one_hot(bank_labels[nearest], classes) * (similarity / TEMPERATURE).exp().unsqueeze(-1)
        for i, k in enumerate(ks):
            correct[i] += (votes[:, :k].sum(1).argmax(1) == truth).sum()
    return {k: 100 * hits / len(query) for k, hits in zip(ks, correct.tolist(), strict=True)}


def evaluate(
    method: Method,
    bank: Manifest,
    query: Manifest,
    size: int,
    machine: Accelerator,
    *,
    neighbours: Sequence[int] = (20,),
) -> dict[str, float]:
    """k-NN accuracy in percent of each part of the method's features, by names such as "knn@20" and "knn@20 IR"."""
    encoder = method.encoder
    was_training = encoder.training
    encoder.eval()
    try:
        bank_features, bank_labels = features(encoder, bank, size, machine)
        query_features, query_labels = features(encoder, query, size, machine)
    finally:
        encoder.train(was_training)
    scores = {}
    for name, part in method.parts().items():
        accuracy = knn_accuracy(
            bank_features[:, part],
            bank_labels,
            query_features[:, part],
            query_labels,
            neighbours=neighbours,
            classes=len(bank.classes),
        )
        scores |= {f"knn@{k}" + (f" {name}" if name != "all" else ""): score for k, score in accuracy.items()}
    return scores
