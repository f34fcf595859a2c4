"""DINO: self-distillation with no labels (Caron et al. 2021)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from clever_fast import ops, schedules
from clever_fast.fields import ABOVE_ZERO, COUNT, NOT_NEGATIVE, SHARE, Bounds, validate
from clever_fast.methods.distillation import (
    freeze_last_layers,
    student_and_teacher,
    student_and_teacher_logits,
    teacher_momentum,
    update_center,
    update_teacher,
)
from clever_fast.methods.method import Batch, Method, MethodConfig, Metric, Progress
from clever_fast.methods.monitoring import assignment_metrics, assignments, spread, spread_metrics
from clever_fast.models import Backbone, DinoHead
from clever_fast.tracing import range_


@dataclass(frozen=True, kw_only=True)
class Dino(MethodConfig):
    """DINO with one head on the whole feature vector; the defaults are those of the released code.

    Args:
        prototypes: K, the head's outputs.
        hidden: width of the head's MLP.
        bottleneck: width before the last layer.
        student_temp: temperature of the student's softmax.
        teacher_temp: temperature of the teacher's softmax after its warm-up.
        warmup_teacher_temp: temperature of the teacher's softmax in epoch 0.
        warmup_teacher_temp_epochs: epochs over which the teacher's temperature rises linearly.
        teacher_momentum: start of the cosine to 1 by which the teacher averages the student.
        center_momentum: of the running mean of the teacher's logits.
        freeze_last_layer: epochs during which the last layers are not trained.
    """

    name: ClassVar[str] = "dino"
    local_crops: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = (
        *assignment_metrics(),
        *spread_metrics("feature", "feature"),
        Metric("center_norm", "centre norm", panel="norm of the centre"),
    )
    protocol: ClassVar[str] = "dino"

    prototypes: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    student_temp: float = 0.1
    teacher_temp: float = 0.04
    warmup_teacher_temp: float = 0.04
    warmup_teacher_temp_epochs: int = 0
    teacher_momentum: float = 0.996
    center_momentum: float = 0.9
    freeze_last_layer: int = 1

    bounds: ClassVar[dict[str, Bounds]] = {
        **dict.fromkeys(("prototypes", "hidden", "bottleneck"), COUNT),
        **dict.fromkeys(("student_temp", "teacher_temp", "warmup_teacher_temp"), ABOVE_ZERO),
        **dict.fromkeys(("warmup_teacher_temp_epochs", "freeze_last_layer"), NOT_NEGATIVE),
        **dict.fromkeys(("teacher_momentum", "center_momentum"), SHARE),
    }

    def __post_init__(self) -> None:
        validate(self, "recipe.method.", self.bounds)

    def build(self, backbone: Backbone, drop_path: float) -> "DinoMethod":
        return DinoMethod(self, backbone, drop_path)

    def teacher_temp_at(self, epoch: int) -> float:
        return schedules.linear_epochs(
            epoch, start=self.warmup_teacher_temp, end=self.teacher_temp, epochs=self.warmup_teacher_temp_epochs
        )


class DinoMethod(Method):
    def __init__(self, config: Dino, backbone: Backbone, drop_path: float):
        super().__init__()
        self.config = config
        encoder = backbone.build(drop_path)
        head = DinoHead(encoder.embed_dim, config.prototypes, hidden=config.hidden, bottleneck=config.bottleneck)
        self.student, self.teacher = student_and_teacher((encoder, backbone.build(0.0)), [encoder.embed_dim], [head])
        self.register_buffer("center", torch.zeros(config.prototypes))

    @property
    def encoder(self) -> nn.Module:
        return self.teacher.backbone

    def networks(self) -> tuple[nn.Module, ...]:
        return self.student.backbone, self.teacher.backbone

    def forward(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        config = self.config
        (s,), (t,), (features,) = student_and_teacher_logits(self.student, self.teacher, batch)
        temps = {"student_temp": config.student_temp, "teacher_temp": config.teacher_temp_at(progress.epoch)}
        with range_("monitors"):  # before the loss, which may write into the student's logits
            monitors = assignments(s, t, self.center, **temps) | spread(features, "feature")
        with range_("loss"):
            loss = ops.distillation_loss(s, t, self.center, **temps, bounded=True, inplace_backward=True)
            update_center(self.center, t, config.center_momentum)
        return {"loss": loss, "center_norm": self.center.norm(), **monitors}

    def before_step(self, progress: Progress) -> None:
        if progress.epoch < self.config.freeze_last_layer:
            freeze_last_layers(self.student)

    def after_step(self, progress: Progress, applied: Tensor) -> None:
        momentum = teacher_momentum(self.config.teacher_momentum, progress)
        update_teacher(self.teacher, self.student, momentum, applied)
