"""The equivariance loss of CLeVER."""

from typing import Literal

from torch import Tensor

from clever_fast.ops import selection
from clever_fast.ops.distillation_loss.reference import check_pairs
from clever_fast.ops.orthogonality_loss import reference, released
from clever_fast.tracing import ranged

Similarity = Literal["cosine", "dot"]


@ranged("orthogonality_loss")
def orthogonality_loss(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    *,
    student_temp: float,
    teacher_temp: float,
    bounded: bool = False,
    inplace_backward: bool = False,
    similarity: Similarity = "cosine",
) -> Tensor:
    """Mean similarity between the teacher's and the student's assignment of different crops, to be driven to zero.

    L = mean over pairs g != v of | mean over N of cos(P_g, softmax(s_v / student_temp)) |,
    with P_g = softmax((t_g - center) / teacher_temp) and the cosine's norms floored at 1e-8.

    Both distributions are positive, so the absolute value is idle and the mean over ranks of per-rank losses is the
    loss of the whole batch.

    Args:
        student: (V, N, K) logits of all V crops; float32, float16 or bfloat16.
        teacher: (G, N, K) logits of the G global crops, which are the student's first G; the pair (g, g) is skipped.
        center: (K,) float32 running mean of the teacher's logits.
        student_temp: temperature of the student's softmax.
        teacher_temp: temperature of the teacher's softmax.
        bounded: promises |logits| <= 1 and |center| <= 1; see `distillation_loss`.
        inplace_backward: lets the fused form write the gradient into the student's memory, whose values are lost.
        similarity: "cosine" as in the released code; "dot" as printed in the paper, which is below 1e-4 at K = 65536
            and gives next to no gradient.

    Returns:
        A float32 scalar in [0, 1]. Only `student` receives a gradient.

    Raises:
        ValueError: the shapes do not fit, there is no pair of different crops, or on a GPU another dtype.

    Source: CLeVER, equation L_Orth; the cosine from the released code.
    """
    form = selection.form(student)
    if form == "fused":
        from clever_fast.ops.crop_pairs import crop_pairs_loss

        return crop_pairs_loss(
            student,
            teacher,
            center,
            form=similarity,
            student_temp=student_temp,
            teacher_temp=teacher_temp,
            bounded=bounded,
            inplace_backward=inplace_backward,
        )
    check_pairs(student, teacher, center)
    plain = released if form == "released" else reference
    return plain.orthogonality_loss(
        student, teacher, center, student_temp=student_temp, teacher_temp=teacher_temp, similarity=similarity
    )
