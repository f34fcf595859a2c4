"""What DINO and CLeVER share: the networks, the teacher's average, the centre and the schedules."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clever_fast import distributed, ops, schedules
from clever_fast.methods.method import Batch, Progress
from clever_fast.tracing import range_


class HeadedBackbone(nn.Module):
    """A backbone whose feature vector is cut into consecutive parts, each with a head of its own.

    The heads are called `head`, `head2`, ... as in the released checkpoints.
    """

    def __init__(self, backbone: nn.Module, widths: Sequence[int], heads: Sequence[nn.Module]):
        super().__init__()
        self.backbone = backbone
        self.widths = tuple(widths)
        self.head_names = tuple(f"head{i if i > 1 else ''}" for i in range(1, len(self.widths) + 1))
        for name, head in zip(self.head_names, heads, strict=True):
            self.add_module(name, head)

    def forward(self, *crops: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Crops of one size each, crop-major (V_i*N, 3, S_i, S_i) -> the heads' logits, each (sum V_i*N, K), and the
        parts of the features (sum V_i*N, D) that they are of."""
        parts = torch.cat([self.backbone(x) for x in crops]).split(self.widths, dim=-1)
        logits = (self.get_submodule(name)(part) for name, part in zip(self.head_names, parts, strict=True))
        return tuple(logits), parts


def student_and_teacher(
    backbones: tuple[nn.Module, nn.Module], widths: Sequence[int], heads: Sequence[nn.Module]
) -> tuple[HeadedBackbone, HeadedBackbone]:
    """A student and its teacher of the same weights. The two backbones may differ in drop path only."""
    student = HeadedBackbone(backbones[0], widths, heads)
    teacher = HeadedBackbone(backbones[1], widths, copy.deepcopy(heads)).requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    return student, teacher


def student_and_teacher_logits(
    student: HeadedBackbone, teacher: HeadedBackbone, batch: Batch
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Per head: the student's logits of all crops (V, N, K), the teacher's of the global crops (G, N, K), and the
    teacher's features of the first crop (N, D)."""
    crops = [x for x in (batch.global_crops, batch.local_crops) if x is not None]
    with range_("teacher"), torch.no_grad():
        logits, features = teacher(batch.global_crops)
        t = [x.unflatten(0, (-1, batch.size)) for x in logits]
    with range_("student"):
        s = [x.unflatten(0, (-1, batch.size)) for x in student(*crops)[0]]
    return s, t, [x[: batch.size] for x in features]


@torch.no_grad()
def update_center(center: Tensor, teacher: Tensor, momentum: float) -> None:
    """center <- momentum center + (1 - momentum) mean of the teacher's logits (G, N, K), of all ranks."""
    center.lerp_(distributed.mean(teacher.mean((0, 1), dtype=torch.float32)), 1 - momentum)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float, applied: Tensor) -> None:
    """Each teacher parameter <- momentum teacher + (1 - momentum) student, or unchanged where `applied` is 0.

    Buffers (BatchNorm's statistics) are the teacher's own.
    """
    ops.lerp_each_(list(teacher.parameters()), list(student.parameters()), (1 - momentum) * applied)


def freeze_last_layers(student: HeadedBackbone) -> None:
    """Drop the last layers' gradients; zeros would still decay the weights and advance AdamW."""
    for name in student.head_names:
        for parameter in student.get_submodule(name).last_layer.parameters():
            parameter.grad = None


def teacher_momentum(start: float, progress: Progress) -> float:
    return schedules.cosine(progress.step, steps=progress.steps, start=start, end=1.0)
