"""The equivariance loss as the released code computes it: pair after pair. What the fused form is compared with."""

import torch
from torch import Tensor
from torch.nn import functional as F


def orthogonality_loss(
    student: Tensor, teacher: Tensor, center: Tensor, *, student_temp: float, teacher_temp: float, similarity: str
) -> Tensor:
    student_crops = (student / student_temp).unbind()
    teacher_crops = F.softmax((teacher - center) / teacher_temp, dim=-1).detach().unbind()
    total, pairs = 0.0, 0
    for g, p in enumerate(teacher_crops):
        for v, s in enumerate(student_crops):
            if v != g:
                q = F.softmax(s.float(), dim=-1)
                similar = F.cosine_similarity(p, q, dim=1) if similarity == "cosine" else (p * q).sum(-1)
                mean = similar.mean()
                total = total + F.l1_loss(mean, torch.zeros_like(mean))
                pairs += 1
    return total / pairs
