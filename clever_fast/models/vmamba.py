"""VMamba (Liu et al. 2024), the released `v05_noz` block: features are LayerNorm, then the average over positions.

Modules carry the names of the released checkpoints. Tensors are (N, H, W, D) between blocks, so that projections and
norms run over the innermost axis and the scan reads 32 channels of a position at once.
"""

import math
from collections import OrderedDict
from functools import partial

import torch
from timm.layers import DropPath
from timm.models import checkpoint_seq
from torch import Tensor, nn
from torch.nn import functional as F

from clever_fast import ops
from clever_fast.models.backbone import Backbone

DIRECTIONS = 4
STEPS = (1e-3, 1e-1)  # the range of delta at initialisation


class Convolution(nn.Conv2d):
    """A convolution of (N, H, W, D); to cuDNN and oneDNN that is NCHW in channels-last memory."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class CrossScan(nn.Module):
    """SS2D: a projection, a depthwise convolution, four selective scans over the image, a norm, a projection."""

    def __init__(self, dim: int, states: int = 1):
        super().__init__()
        rank, channels = math.ceil(dim / 16), DIRECTIONS * dim
        self.in_proj = nn.Linear(dim, dim, bias=False)
        self.conv2d = Convolution(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, rank + 2 * states, dim))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, dim, rank).uniform_(-1, 1) * rank**-0.5)
        self.dt_projs_bias = nn.Parameter(_bias_for_steps(DIRECTIONS, dim))
        self.A_logs = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(channels, 1))
        self.Ds = nn.Parameter(torch.ones(channels))
        self.out_norm = nn.LayerNorm(dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        for weight in self.x_proj_weight:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # nn.Linear's own

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv2d(self.in_proj(x)))
        y = ops.cross_scan(
            x, self.x_proj_weight, self.dt_projs_weight, -self.A_logs.exp(), self.Ds, self.dt_projs_bias.flatten()
        )
        return self.out_proj(self.out_norm(y).to(x.dtype))


def _bias_for_steps(*shape: int) -> Tensor:
    """The inverse of softplus of log-uniform steps."""
    low, high = map(math.log, STEPS)
    steps = torch.empty(shape).uniform_(low, high).exp()
    return steps + (-torch.expm1(-steps)).log()


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, drop_path: float):
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.op, self.mlp = CrossScan(dim), Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class VMamba(nn.Module):
    """Images (N, 3, S, S) -> features (N, dim * 2 ** (stages - 1)).

    Args:
        dim: channels of the first stage; each next one has twice as many.
        depths: blocks of each stage.
        drop_path: stochastic depth rate of the last block; it rises linearly from 0.
    """

    def __init__(self, dim: int, depths: tuple[int, ...], drop_path: float = 0.0):
        super().__init__()
        dims = [dim * 2**stage for stage in range(len(depths))]
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        self.embed_dim = dims[-1]
        self.patch_embed = _numbered(
            {
                0: Convolution(3, dim // 2, 3, stride=2, padding=1),
                2: nn.LayerNorm(dim // 2),
                4: nn.GELU(),
                5: Convolution(dim // 2, dim, 3, stride=2, padding=1),
                7: nn.LayerNorm(dim),
            }
        )
        self.layers = nn.ModuleList()
        for width, depth in zip(dims, depths, strict=True):
            blocks = nn.Sequential(*(Block(width, next(rates)) for _ in range(depth)))
            down = {1: Convolution(width, 2 * width, 3, stride=2, padding=1), 3: nn.LayerNorm(2 * width)}
            last = width == self.embed_dim
            self.layers.append(_named(blocks=blocks, downsample=nn.Identity() if last else _numbered(down)))
        self.classifier = _named(norm=nn.LayerNorm(self.embed_dim))
        self.grad_checkpointing = False
        self.apply(_initialise)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass; timm's networks have a method of this name too."""
        self.grad_checkpointing = enable

    def forward_features(self, images: Tensor) -> Tensor:
        """The last stage after its norm, (N, D, H / 32, W / 32) for four stages, sizes rounded up."""
        x = self.patch_embed(images.permute(0, 2, 3, 1))
        for layer in self.layers:
            x = checkpoint_seq(layer.blocks, x) if self.grad_checkpointing else layer.blocks(x)
            x = layer.downsample(x)
        return self.classifier(x).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_features(images).mean((2, 3))


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def _numbered(modules: dict[int, nn.Module]) -> nn.Sequential:
    """The released modules permuted between NCHW and NHWC in between, so their numbers have gaps."""
    return _named(**{str(number): module for number, module in modules.items()})


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


VMAMBAS = (
    Backbone("vmamba_tiny", partial(VMamba, 96, (2, 2, 8, 2)), "VMamba-T", drop_path=0.2),
    Backbone("vmamba_small", partial(VMamba, 96, (2, 2, 20, 2)), "VMamba-S", drop_path=0.3),
    Backbone("vmamba_base", partial(VMamba, 128, (2, 2, 20, 2)), "VMamba-B", drop_path=0.6),
    Backbone(
        "vmamba_mini", partial(VMamba, 32, (1, 1, 1)), "small VMamba"
    ),  # for tests, and for pretraining within minutes on a CPU
)
