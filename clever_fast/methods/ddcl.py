"""DDCL: distortion-disentangled contrastive learning (Wang et al. 2024), with or without CLeVER's PReg."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from clever_fast import distributed, ops
from clever_fast.fields import NOT_NEGATIVE, WITHIN, Bounds
from clever_fast.methods.method import Batch, Method, Metric, Progress, split_width
from clever_fast.methods.monitoring import PAIR_METRICS
from clever_fast.methods.simsiam import SimSiam, features, similarity, spread
from clever_fast.models import Backbone, Predictor, Projector
from clever_fast.models.resnet import start_as_torch


@dataclass(frozen=True, kw_only=True)
class Ddcl(SimSiam):
    """SimSiam on the first part of the feature vector (IR), its opposite on the rest (EF): outputs that are orthogonal.

    Args:
        separation_ratio: share of the feature vector that is the invariant representation, floored to whole channels.
        invariance_weight: alpha, of SimSiam's loss on IR.
        orthogonality_weight: beta, of the absolute similarity on EF.
        preg_weight: lambda, of the gap between the pairs' squared parameter norms; 0 is DDCL as first published.
    """

    name: ClassVar[str] = "ddcl"
    metrics: ClassVar[tuple[Metric, ...]] = (
        *PAIR_METRICS,
        Metric("output_std", "IR output std", panel="standard deviation of the outputs", watched=True),
        Metric("output2_std", "EF output std", panel="standard deviation of the outputs", watched=True),
    )

    train_projector_bias: bool = True  # unlike SimSiam's
    separation_ratio: float = 0.8
    invariance_weight: float = 1.0
    orthogonality_weight: float = 1.0
    preg_weight: float = 0.001

    bounds: ClassVar[dict[str, Bounds]] = {
        **SimSiam.bounds,
        "separation_ratio": WITHIN,
        **dict.fromkeys(("invariance_weight", "orthogonality_weight", "preg_weight"), NOT_NEGATIVE),
    }

    def build(self, backbone: Backbone, drop_path: float) -> "DdclMethod":
        return DdclMethod(self, backbone, drop_path)


class DdclMethod(Method):
    """L = alpha L_I + beta L_V + lambda L_PReg with a projector P and a predictor Q for IR, and another pair for EF.

    L_I = -(cos(p1, z2) + cos(p2, z1)) / 2 on IR, L_V = |mean (cos(p1, z2) + cos(p2, z1)) / 2| on EF,
    L_PReg = (| |P_IR|^2 - |P_EF|^2 | + | |Q_IR|^2 - |Q_EF|^2 |) / 2.
    """

    def __init__(self, config: Ddcl, backbone: Backbone, drop_path: float):
        super().__init__()
        self.config = config
        self.encoder = start_as_torch(backbone.build(drop_path))
        D = self.encoder.embed_dim
        self.ir_width = split_width(config.separation_ratio, D)
        shape = {"width": config.width, "hidden": config.hidden, "train_bias": config.train_projector_bias}
        self.projector = Projector(self.ir_width, **shape)
        self.predictor = Predictor(config.width, config.bottleneck)
        self.projector2 = Projector(D - self.ir_width, **shape)
        self.predictor2 = Predictor(config.width, config.bottleneck)

    def parts(self) -> dict[str, slice]:
        return {"all": slice(None), "IR": slice(0, self.ir_width), "EF": slice(self.ir_width, None)}

    def networks(self) -> tuple[nn.Module, ...]:
        return (self.encoder,)

    def constant_lr(self) -> list[nn.Parameter]:
        return [*self.predictor.parameters(), *self.predictor2.parameters()]

    def forward(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        config = self.config
        h = features(self.encoder, batch)
        z = [self.projector(h_i[:, : self.ir_width]) for h_i in h]
        z2 = [self.projector2(h_i[:, self.ir_width :]) for h_i in h]
        invariance = -similarity([self.predictor(z_i) for z_i in z], z)
        orthogonality = absolute(similarity([self.predictor2(z_i) for z_i in z2], z2))
        gap_p, norms_p = _norm_gap(self.projector, self.projector2)
        gap_q, norms_q = _norm_gap(self.predictor, self.predictor2)
        preg, norms = (gap_p + gap_q) / 2, norms_p + norms_q
        return {
            "loss": config.invariance_weight * invariance
            + config.orthogonality_weight * orthogonality
            + config.preg_weight * preg,
            "invariance": invariance,
            "orthogonality": orthogonality,
            "preg": preg,
            "ir_norm_squared": norms[0],
            "ef_norm_squared": norms[1],
            "output_std": spread(z),
            "output2_std": spread(z2),
        }


def absolute(mean: Tensor) -> Tensor:
    """|mean over all ranks| of each rank's mean over as many images, so that no number of processes changes the loss.

    On a rank it is the own mean with the sign of all ranks': averaged over the ranks, value and gradient are those of
    one process with the whole batch. The released code takes each GPU's own absolute value.
    """
    return mean * torch.sign(distributed.mean(mean.detach().clone()))


def _norm_gap(left: nn.Module, right: nn.Module) -> tuple[Tensor, Tensor]:
    return ops.norm_gap(list(left.parameters()), list(right.parameters()))
