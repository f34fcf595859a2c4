"""The invariance loss in plain torch, as the equation reads."""

import torch
from torch import Tensor


def distillation_loss(
    student: Tensor, teacher: Tensor, center: Tensor, *, student_temp: float, teacher_temp: float
) -> Tensor:
    P = teacher_probabilities(teacher, center, teacher_temp)  # (G, N, K)
    log_q = (at_least_float32(student) / student_temp).log_softmax(-1)  # (V, N, K)
    pairs = torch.stack([-(P_g * log_q).sum(-1).mean(-1) for P_g in P])  # (G, V); no matmul: autocast would round it
    return mean_of_different_crops(pairs)


def teacher_probabilities(teacher: Tensor, center: Tensor, teacher_temp: float) -> Tensor:
    """softmax((teacher - center) / teacher_temp) over K, without a gradient."""
    return ((at_least_float32(teacher.detach()) - center) / teacher_temp).softmax(-1)


def mean_of_different_crops(pairs: Tensor) -> Tensor:
    """The mean of (G, V) pairs with the G pairs of one crop with itself left out."""
    G, V = pairs.shape
    return (pairs.sum() - pairs.diagonal().sum()) / (G * V - G)


def at_least_float32(x: Tensor) -> Tensor:
    """16-bit logits in float32; float64 stays, for tests."""
    return x if x.dtype == torch.float64 else x.float()


def check_pairs(student: Tensor, teacher: Tensor, center: Tensor) -> None:
    (V, N, K), (G, *rest) = student.shape, teacher.shape
    if rest != [N, K] or center.shape != (K,):
        raise ValueError(
            f"student (V, N, K) {tuple(student.shape)}, teacher (G, N, K) {tuple(teacher.shape)} and center (K,) "
            f"{tuple(center.shape)} do not fit together"
        )
    if not 1 <= G <= V or V == 1:
        raise ValueError(f"{G} teacher and {V} student crops hold no pair of different crops; give at least two crops")
