"""SimSiam: two views of an image predict each other (Chen & He 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clever_fast.fields import COUNT, Bounds, validate
from clever_fast.methods.method import Batch, Method, MethodConfig, Metric, Progress
from clever_fast.models import Backbone, Predictor, Projector
from clever_fast.models.resnet import start_residuals_at_zero


@dataclass(frozen=True, kw_only=True)
class SimSiam(MethodConfig):
    """SimSiam on the whole feature vector; the defaults are those of the released code.

    Args:
        width: of the projector's outputs, which are compared.
        hidden: width of the projector's first two layers; None for that of its outputs. The released code takes the
            width of the features: 512 for a ResNet-18.
        bottleneck: width of the predictor's hidden layer.
        train_projector_bias: train, and decay, the bias before the projector's last BatchNorm, which cancels it.
    """

    name: ClassVar[str] = "simsiam"
    local_crops: ClassVar[bool] = False
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("output_std", "output std", panel="standard deviation of the outputs", watched=True),
    )
    protocol: ClassVar[str] = "simsiam"

    width: int = 2048
    hidden: int | None = None
    bottleneck: int = 512
    train_projector_bias: bool = False

    least_images: ClassVar[int] = 2  # of a process: the projector's BatchNorm takes the spread over them
    bounds: ClassVar[dict[str, Bounds]] = dict.fromkeys(("width", "hidden", "bottleneck"), COUNT)

    def __post_init__(self) -> None:
        validate(self, "recipe.method.", self.bounds)

    def build(self, backbone: Backbone, drop_path: float) -> "SimSiamMethod":
        return SimSiamMethod(self, backbone, drop_path)


class SimSiamMethod(Method):
    """L = -(cos(p1, z2) + cos(p2, z1)) / 2 with z = projector(encoder(x)) and p = predictor(z); z has no gradient."""

    def __init__(self, config: SimSiam, backbone: Backbone, drop_path: float):
        super().__init__()
        self.encoder = start_residuals_at_zero(backbone.build(drop_path))
        bias = {"train_bias": config.train_projector_bias}
        self.projector = Projector(self.encoder.embed_dim, config.width, config.hidden, **bias)
        self.predictor = Predictor(config.width, config.bottleneck)

    def networks(self) -> tuple[nn.Module, ...]:
        return (self.encoder,)

    def constant_lr(self) -> list[nn.Parameter]:
        return list(self.predictor.parameters())

    def forward(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        z = [self.projector(h) for h in features(self.encoder, batch)]
        p = [self.predictor(z_i) for z_i in z]
        return {"loss": -similarity(p, z), "output_std": spread(z)}


def features(encoder: nn.Module, batch: Batch) -> list[Tensor]:
    """(N, D) of each of the two views, in a forward pass each: BatchNorm sees one view at a time, as published."""
    return [encoder(x) for x in batch.global_crops.chunk(2)]


def similarity(p: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
    """mean_N (cos(p1, z2) + cos(p2, z1)) / 2 of predictions and projections (N, D); no gradient reaches z."""
    (p1, p2), (z1, z2) = p, (z_i.detach() for z_i in z)
    return (_cosine(p1, z2).mean() + _cosine(p2, z1).mean()) / 2


def _cosine(left: Tensor, right: Tensor) -> Tensor:
    full = torch.promote_types(left.dtype, torch.float32)  # autocast's half precision is too coarse for norms
    return F.cosine_similarity(left.to(full), right.to(full), eps=1e-8)


@torch.no_grad()
def spread(z: Sequence[Tensor]) -> Tensor:
    """sqrt(D) times the standard deviation of normalised outputs (N, D) over the images: near 1, or 0 in collapse."""
    normalised = F.normalize(z[0].float(), dim=1)
    return normalised.std(dim=0, correction=0).mean() * normalised.shape[1] ** 0.5
