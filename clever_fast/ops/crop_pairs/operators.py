"""The kernels as torch operators: what autograd, torch.compile and the profiler see.

A CPU tensor runs them in Triton's interpreter (TRITON_INTERPRET=1, for tests); the public ops never send one here.
"""

import torch
from torch import Tensor

from clever_fast.ops.crop_pairs import launch
from clever_fast.ops.distillation_loss.reference import check_pairs
from clever_fast.tracing import ranged

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
DEVICES = ("cuda", "cpu")


def crop_pairs_loss(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    *,
    form: str,
    student_temp: float,
    teacher_temp: float,
    bounded: bool,
    inplace_backward: bool,
) -> Tensor:
    """The mean over pairs and images of a form of `launch.FORMS`. Arguments as in the public ops.

    Raises:
        ValueError: the shapes do not fit, or a dtype that the kernels do not read.
    """
    check_pairs(student, teacher, center)
    for name, x in (("student", student), ("teacher", teacher)):
        if x.dtype not in DTYPES:
            raise ValueError(f"{name} is {x.dtype}; the fused losses take float32, float16 and bfloat16 logits")
    temperatures = student_temp, teacher_temp
    center = center.to(torch.float32, copy=True).contiguous()  # the methods update theirs before the backward
    loss, _, _ = forward(student, teacher, center, *temperatures, launch.FORMS[form], bounded, inplace_backward)
    return loss


@torch.library.custom_op("clever_fast::crop_pairs", mutates_args=(), device_types=DEVICES)
def forward(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    student_temp: float,
    teacher_temp: float,
    form: int,
    bounded: bool,
    inplace_backward: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.cuda.device_of(student):  # Triton launches on the current device
        return launch.forward(student, teacher, center, student_temp, teacher_temp, form, bounded)


@torch.library.custom_op("clever_fast::crop_pairs_backward", mutates_args=(), device_types=DEVICES)
def backward(
    grad: Tensor,
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    student_stats: Tensor,
    teacher_stats: Tensor,
    student_temp: float,
    teacher_temp: float,
    form: int,
) -> Tensor:
    out = torch.empty(student.shape, dtype=student.dtype, device=student.device)
    tensors = grad, student, teacher, center, student_stats, teacher_stats
    with torch.cuda.device_of(student):
        launch.backward(*tensors, student_temp, teacher_temp, form, out)
    return out


@torch.library.custom_op("clever_fast::crop_pairs_backward_", mutates_args=("student",), device_types=DEVICES)
def backward_(
    grad: Tensor,
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    student_stats: Tensor,
    teacher_stats: Tensor,
    student_temp: float,
    teacher_temp: float,
    form: int,
) -> None:
    tensors = grad, student, teacher, center, student_stats, teacher_stats
    with torch.cuda.device_of(student):
        launch.backward(*tensors, student_temp, teacher_temp, form, student)


@forward.register_fake
def _(student, teacher, center, student_temp, teacher_temp, form, bounded, inplace_backward):
    (V, N, _), G = student.shape, len(teacher)
    return center.new_empty(()), center.new_empty(3, V, N), center.new_empty(2, G, N)


@backward.register_fake
def _(grad, student, *_):
    return student.new_empty(student.shape)


def _setup(ctx, inputs, output) -> None:
    student, teacher, center, *ctx.temperatures_and_form, _, ctx.inplace = inputs
    _, student_stats, teacher_stats = output
    ctx.save_for_backward(student, teacher, center, student_stats, teacher_stats)
    ctx.set_materialize_grads(False)


@ranged("crop_pairs backward")
def _differentiate(ctx, grad, *_):
    if grad is None:
        return (None,) * 8
    student, *others = ctx.saved_tensors
    if ctx.inplace:
        backward_(grad, student, *others, *ctx.temperatures_and_form)
        return student.detach(), *(None,) * 7
    return backward(grad, student, *others, *ctx.temperatures_and_form), *(None,) * 7


forward.register_autograd(_differentiate, setup_context=_setup)
