"""CLeVER: contrastive learning via equivariant representation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from clever_fast import ops
from clever_fast.fields import COUNT, NOT_NEGATIVE, WITHIN, Bounds
from clever_fast.methods.dino import Dino
from clever_fast.methods.distillation import (
    freeze_last_layers,
    student_and_teacher,
    student_and_teacher_logits,
    teacher_momentum,
    update_center,
    update_teacher,
)
from clever_fast.methods.method import Batch, Method, Metric, Progress, split_width
from clever_fast.methods.monitoring import PAIR_METRICS, assignment_metrics, assignments, spread, spread_metrics
from clever_fast.models import Backbone, DinoHead
from clever_fast.ops.orthogonality_loss import Similarity
from clever_fast.tracing import range_


@dataclass(frozen=True, kw_only=True)
class Clever(Dino):
    """DINO on the first part of the feature vector (IR), orthogonality on the rest (EF); the released code's defaults.

    Args:
        separation_ratio: share of the feature vector that is the invariant representation, floored to whole channels.
        ef_prototypes: outputs of the second head; None for as many as `prototypes`.
        invariance_weight: alpha, of the cross-entropy.
        orthogonality_weight: beta, of the orthogonality loss.
        preg_weight: lambda, of the gap between the heads' squared parameter norms.
        orthogonality: "cosine" as released or "dot" as printed in the paper.
    """

    name: ClassVar[str] = "clever"
    metrics: ClassVar[tuple[Metric, ...]] = (
        *PAIR_METRICS,
        *assignment_metrics(label="IR "),
        *assignment_metrics("2", "EF "),
        *spread_metrics("ir", "IR"),
        *spread_metrics("ef", "EF"),
        Metric("center_norm", "IR centre", panel="norm of the centre"),
        Metric("center2_norm", "EF centre", panel="norm of the centre"),
    )

    separation_ratio: float = 0.8
    ef_prototypes: int | None = None
    invariance_weight: float = 1.0
    orthogonality_weight: float = 1.0
    preg_weight: float = 0.001
    orthogonality: Similarity = "cosine"

    bounds: ClassVar[dict[str, Bounds]] = {
        **Dino.bounds,
        "separation_ratio": WITHIN,
        "ef_prototypes": COUNT,
        **dict.fromkeys(("invariance_weight", "orthogonality_weight", "preg_weight"), NOT_NEGATIVE),
    }

    def build(self, backbone: Backbone, drop_path: float) -> "CleverMethod":
        return CleverMethod(self, backbone, drop_path)


class CleverMethod(Method):
    def __init__(self, config: Clever, backbone: Backbone, drop_path: float):
        super().__init__()
        self.config = config
        encoder = backbone.build(drop_path)
        D = encoder.embed_dim
        self.ir_width = split_width(config.separation_ratio, D)
        widths = (self.ir_width, D - self.ir_width)
        prototypes = (config.prototypes, config.ef_prototypes or config.prototypes)
        heads = [
            DinoHead(width, K, hidden=config.hidden, bottleneck=config.bottleneck)
            for width, K in zip(widths, prototypes, strict=True)
        ]
        self.student, self.teacher = student_and_teacher((encoder, backbone.build(0.0)), widths, heads)
        self.register_buffer("center", torch.zeros(prototypes[0]))
        self.register_buffer("center2", torch.zeros(prototypes[1]))

    @property
    def encoder(self) -> nn.Module:
        return self.teacher.backbone

    def networks(self) -> tuple[nn.Module, ...]:
        return self.student.backbone, self.teacher.backbone

    def parts(self) -> dict[str, slice]:
        return {"all": slice(None), "IR": slice(0, self.ir_width), "EF": slice(self.ir_width, None)}

    def forward(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        config = self.config
        (s_ir, s_ef), (t_ir, t_ef), (ir, ef) = student_and_teacher_logits(self.student, self.teacher, batch)
        temps = {"student_temp": config.student_temp, "teacher_temp": config.teacher_temp_at(progress.epoch)}
        with range_("monitors"):  # before the losses, which may write into the student's logits
            monitors = assignments(s_ir, t_ir, self.center, **temps) | spread(ir, "ir")
            monitors |= assignments(s_ef, t_ef, self.center2, **temps, head="2") | spread(ef, "ef")
        shared = {
            **temps,
            "bounded": True,
            "inplace_backward": True,
        }  # nothing reads the student's logits after its loss
        with range_("loss"):
            invariance = ops.distillation_loss(s_ir, t_ir, self.center, **shared)
            orthogonality = ops.orthogonality_loss(s_ef, t_ef, self.center2, similarity=config.orthogonality, **shared)
            preg, norms = ops.norm_gap(list(self.student.head.parameters()), list(self.student.head2.parameters()))
            update_center(self.center, t_ir, config.center_momentum)
            update_center(self.center2, t_ef, config.center_momentum)
        return {
            "loss": config.invariance_weight * invariance
            + config.orthogonality_weight * orthogonality
            + config.preg_weight * preg,
            "invariance": invariance,
            "orthogonality": orthogonality,
            "preg": preg,
            "ir_norm_squared": norms[0],
            "ef_norm_squared": norms[1],
            "center_norm": self.center.norm(),
            "center2_norm": self.center2.norm(),
            **monitors,
        }

    def before_step(self, progress: Progress) -> None:
        if progress.epoch < self.config.freeze_last_layer:
            freeze_last_layers(self.student)

    def after_step(self, progress: Progress, applied: Tensor) -> None:
        momentum = teacher_momentum(self.config.teacher_momentum, progress)
        update_teacher(self.teacher, self.student, momentum, applied)
