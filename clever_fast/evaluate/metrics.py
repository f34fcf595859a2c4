"""How often a prediction is right, and how much that varies."""

import torch
from torch import Tensor


def accuracy(predicted: Tensor, labels: Tensor) -> Tensor:
    """Percent of predictions (..., n) that equal the labels (n,), as float64 (...)."""
    return 100 * (predicted == labels).double().mean(-1)


def class_accuracy(predicted: Tensor, labels: Tensor) -> Tensor:
    """Percent right of each class, averaged over the classes among the labels (n,); predictions (..., n)."""
    right = (predicted == labels).double()
    classes, counts = labels.unique(return_counts=True)
    return 100 * torch.stack([right[..., labels == c].sum(-1) for c in classes], -1).div(counts).mean(-1)


def spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sample standard deviation over the first dimension; 0 for a single value."""
    return values.mean(0), values.std(0) if len(values) > 1 else torch.zeros_like(values[0])
