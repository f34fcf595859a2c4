"""The equivariance loss in plain torch, as the equation reads."""

import torch
from torch import Tensor

from clever_fast.ops.distillation_loss.reference import (
    at_least_float32,
    mean_of_different_crops,
    teacher_probabilities,
)

EPS = 1e-8  # torch.nn.functional.cosine_similarity's


def orthogonality_loss(
    student: Tensor, teacher: Tensor, center: Tensor, *, student_temp: float, teacher_temp: float, similarity: str
) -> Tensor:
    P = teacher_probabilities(teacher, center, teacher_temp)  # (G, N, K)
    Q = (at_least_float32(student) / student_temp).softmax(-1)  # (V, N, K)
    if similarity == "cosine":
        P, Q = (x / x.norm(dim=-1, keepdim=True).clamp_min(EPS) for x in (P, Q))
    pairs = torch.stack([(P_g * Q).sum(-1).mean(-1).abs() for P_g in P])  # (G, V)
    return mean_of_different_crops(pairs)
