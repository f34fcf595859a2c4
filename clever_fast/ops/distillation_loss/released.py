"""The invariance loss as the released code computes it: pair after pair. What the fused form is compared with."""

from torch import Tensor
from torch.nn import functional as F


def distillation_loss(
    student: Tensor, teacher: Tensor, center: Tensor, *, student_temp: float, teacher_temp: float
) -> Tensor:
    student_crops = (student / student_temp).unbind()
    teacher_crops = F.softmax((teacher - center) / teacher_temp, dim=-1).detach().unbind()
    total, pairs = 0.0, 0
    for g, p in enumerate(teacher_crops):
        for v, s in enumerate(student_crops):
            if v != g:
                total = total + (-p * F.log_softmax(s.float(), dim=-1)).sum(-1).mean()
                pairs += 1
    return total / pairs
