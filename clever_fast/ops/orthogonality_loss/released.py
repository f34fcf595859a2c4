"""The equivariance loss as the released code computes it: pair after pair. What the fused form is compared with."""

import torch
from torch import Tensor
from torch.nn import functional as F

from clever_fast.ops.distillation_loss.released import pairs


def orthogonality_loss(
    student: Tensor, teacher: Tensor, center: Tensor, *, similarity: str, **temperatures: float
) -> Tensor:
    total, count = 0.0, 0
    for p, s in pairs(student, teacher, center, **temperatures):
        q = F.softmax(s, dim=-1)
        similar = F.cosine_similarity(p, q, dim=1) if similarity == "cosine" else (p * q).sum(-1)
        mean = similar.mean()
        total = total + F.l1_loss(mean, torch.zeros_like(mean))
        count += 1
    return total / count
