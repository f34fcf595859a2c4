"""The projection heads of DINO, and the projector and predictor of SimSiam."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WeightNormLinear(nn.Module):
    """A bias-free linear layer y = x (g v / ||v||)^T with one gain g and one direction v for each output.

    Its parameters carry the names of `torch.nn.utils.weight_norm`, which DINO's checkpoints use.
    """

    def __init__(self, in_features: int, out_features: int, *, train_gain: bool = False):
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_features, 1), requires_grad=train_gain)
        self.weight_v = nn.Parameter(nn.Linear(in_features, out_features, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch._weight_norm(self.weight_v, self.weight_g, 0))


class DinoHead(nn.Module):
    """Features (..., D) -> logits (..., K): a three-layer GELU MLP, L2 normalisation, then prototypes of unit norm.

    With the gain frozen the logits are cosines, so |logits| <= 1.

    Source: DINO (Caron et al. 2021), appendix C, and its released code.
    """

    def __init__(self, in_features: int, prototypes: int, *, hidden: int = 2048, bottleneck: int = 256):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.mlp[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.last_layer = WeightNormLinear(bottleneck, prototypes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class Projector(nn.Sequential):
    """Features (N, D) -> projections (N, width): three linear layers, BatchNorm after each, ReLU after the first two.

    The last BatchNorm has no parameters of its own, so the bias before it has no effect on the output. It is there as
    in the released code: in DDCL it counts in PReg and is decayed, in SimSiam it is not trained.

    Args:
        in_features: D.
        width: of the output.
        hidden: width of the first two layers; None for that of the output.
        train_bias: whether the last linear layer's bias is trained.

    Source: SimSiam (Chen & He 2021), section 3, and its released code.
    """

    def __init__(self, in_features: int, width: int, hidden: int | None = None, *, train_bias: bool = True):
        hidden = hidden or width
        super().__init__(
            nn.Linear(in_features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, width),
            nn.BatchNorm1d(width, affine=False),
        )
        self[6].bias.requires_grad_(train_bias)


class Predictor(nn.Sequential):
    """Projections (N, width) -> predictions (N, width) through a bottleneck with BatchNorm and ReLU; same source."""

    def __init__(self, width: int, bottleneck: int):
        super().__init__(
            nn.Linear(width, bottleneck, bias=False),
            nn.BatchNorm1d(bottleneck),
            nn.ReLU(inplace=True),
            nn.Linear(bottleneck, width),
        )
