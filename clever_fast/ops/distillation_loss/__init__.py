"""The invariance loss of DINO and CLeVER."""

from torch import Tensor

from clever_fast.ops import selection
from clever_fast.ops.distillation_loss import reference, released
from clever_fast.tracing import ranged


@ranged("distillation_loss")
def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    *,
    student_temp: float,
    teacher_temp: float,
    bounded: bool = False,
    inplace_backward: bool = False,
) -> Tensor:
    """Mean cross-entropy between the teacher's and the student's assignment of different crops of an image.

    L = mean over pairs g != v of mean over N of -sum_k P_g log softmax(s_v / student_temp)_k,
    with P_g = softmax((t_g - center) / teacher_temp).

    Args:
        student: (V, N, K) logits of all V crops; float32, float16 or bfloat16.
        teacher: (G, N, K) logits of the G global crops, G <= V; crop g of the teacher is crop g of the student and the
            pair (g, g) is skipped.
        center: (K,) float32 running mean of the teacher's logits.
        student_temp: temperature of the student's softmax.
        teacher_temp: temperature of the teacher's softmax.
        bounded: promises |logits| <= 1 (both factors of the last layer are normalised) and |center| <= 1. Changes no
            value; the fused form then needs no running maximum.
        inplace_backward: lets the fused form write the gradient into the student's memory, whose values are lost.

    Returns:
        A float32 scalar. Only `student` receives a gradient.

    Raises:
        ValueError: the shapes do not fit, there is no pair of different crops, or on a GPU another dtype.

    Source: CLeVER, equation L_CL; DINO (Caron et al. 2021), equation 3.
    """
    form = selection.form(student)
    if form == "fused":
        from clever_fast.ops.crop_pairs import crop_pairs_loss

        return crop_pairs_loss(
            student,
            teacher,
            center,
            form="cross_entropy",
            student_temp=student_temp,
            teacher_temp=teacher_temp,
            bounded=bounded,
            inplace_backward=inplace_backward,
        )
    reference.check_pairs(student, teacher, center)
    plain = released if form == "released" else reference
    return plain.distillation_loss(student, teacher, center, student_temp=student_temp, teacher_temp=teacher_temp)
