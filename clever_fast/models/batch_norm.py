"""BatchNorm over the batches of all processes, in operators that torch.compile traces and no host waits for."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import _functional_collectives as collectives
from torch.nn.modules.batchnorm import _BatchNorm

# torch before 2.14 has the second name only, and later ones warn of it in every process
gather = getattr(collectives, "all_gather_single", None) or collectives.all_gather_tensor


class SharedBatchNorm(_BatchNorm):
    """BatchNorm whose statistics, in training, are those of the equally large batches of all processes.

    y = (x - mean) / sqrt(var + eps) weight + bias over all axes of x (N, C, ...) but the channels, computed in float32
    (float64 where x is); y has x's dtype. Values and names in the state are those of `nn.SyncBatchNorm`, which looks at
    every rank's count and so has the host wait once a layer, and cannot be compiled whole. Uncompiled this one reads x
    more often.

    One message a pass: each rank's mean and variance (2C floats) forward, the sum of two means (2C) backward.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        normalised, mean, variance = _Normalise.apply(x, self.eps)
        with torch.no_grad():
            count = x.numel() // x.shape[1] * dist.get_world_size()
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        if self.weight is not None:
            shape = _beside(x)
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)


class _Normalise(torch.autograd.Function):
    """x (N, C, ...) -> (x - mean) / sqrt(var + eps) in float32, and the mean and variance (C,) of all ranks.

    With z the first output and m the mean over all ranks' elements of a channel, the gradient of x is
    (g - m(g) - z m(g z)) / sqrt(var + eps): that of the sum of the ranks' losses, which DDP averages afterwards.
    """

    @staticmethod
    def forward(ctx, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(_full(x), _all_but_channels(x), correction=0)
        ranks = gather(torch.stack([mean, variance])[None], 0, dist.group.WORLD)
        means, variances = collectives.wait_tensor(ranks).unbind(1)  # (R, C); waits on the stream, not on the host
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        return (_full(x) - mean.view(_beside(x))) * scale.view(_beside(x)), mean, variance

    @staticmethod
    def backward(ctx, g: Tensor, *_) -> tuple[Tensor, None]:
        x, mean, scale = ctx.saved_tensors
        axes, shape = _all_but_channels(x), _beside(x)
        z = (_full(x) - mean.view(shape)) * scale.view(shape)
        sums = collectives.all_reduce(torch.stack([g.mean(axes), (g * z).mean(axes)]), "sum", dist.group.WORLD)
        g_mean, gz_mean = (collectives.wait_tensor(sums) / dist.get_world_size()).unbind()
        return ((g - g_mean.view(shape) - z * gz_mean.view(shape)) * scale.view(shape)).to(x.dtype), None


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _beside(x: Tensor) -> list[int]:
    """The shape of a (C,) vector that is broadcast to x."""
    return [1, -1] + [1] * (x.ndim - 2)


def share_statistics(module: nn.Module) -> nn.Module:
    """The module with every BatchNorm in it, or itself, made a `SharedBatchNorm` of the same tensors."""
    if isinstance(module, SharedBatchNorm):
        return module
    if isinstance(module, _BatchNorm):
        shared = SharedBatchNorm(module.num_features, module.eps, module.momentum, module.affine)
        shared.weight, shared.bias = module.weight, module.bias
        shared._buffers, shared.training = module._buffers, module.training
        return shared
    for name, child in module.named_children():
        module.add_module(name, share_statistics(child))
    return module
