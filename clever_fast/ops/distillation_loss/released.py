"""The invariance loss as the released code computes it: pair after pair. What the fused form is compared with."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F


def distillation_loss(student: Tensor, teacher: Tensor, center: Tensor, **temperatures: float) -> Tensor:
    total, count = 0.0, 0
    for p, s in pairs(student, teacher, center, **temperatures):
        total = total + (-p * F.log_softmax(s, dim=-1)).sum(-1).mean()
        count += 1
    return total / count


def pairs(
    student: Tensor, teacher: Tensor, center: Tensor, *, student_temp: float, teacher_temp: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities (N, K) of a teacher's crop and scaled float32 logits (N, K) of another crop of the student."""
    student_crops = (student / student_temp).unbind()
    teacher_crops = F.softmax((teacher - center) / teacher_temp, dim=-1).detach().unbind()
    for g, p in enumerate(teacher_crops):
        for v, s in enumerate(student_crops):
            if v != g:
                yield p, s.float()
