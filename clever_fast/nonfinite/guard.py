"""Updates that skip themselves on the device when a loss or gradient is not finite."""

import torch
from torch import Tensor, nn


class FailureGuard:
    """Keeps the last good state when a loss or gradient is not finite, without asking the device.

    From the first failed step on, every update is skipped on every rank: the local loss is multiplied by NaN, so that
    all ranks' gradients are NaN after the all-reduce, and buffers (BatchNorm statistics, centres) are put back.
    """

    def __init__(self, method: nn.Module, device: torch.device, *, overflow_is_normal: bool):
        self.buffers = _flatten_float_buffers(method)
        self.before = torch.empty_like(self.buffers)
        self.failed_step = torch.full((), -1, dtype=torch.int64, device=device)
        self.overflow_is_normal = overflow_is_normal  # fp16: a scale that was too large, not a failure

    def remember(self) -> None:
        self.before.copy_(self.buffers)

    def poison(self, loss: Tensor, step: int) -> Tensor:
        """The loss; NaN in value and gradient from the first step on whose loss is not finite."""
        self._record(~loss.detach().isfinite(), step)
        return loss * torch.where(self.failed_step < 0, 1.0, torch.nan)

    def check(self, norms: Tensor, step: int) -> Tensor:
        """1.0 if the step has to be skipped, else 0.0; puts the buffers back if so."""
        bad = ~norms.isfinite().all()
        if not self.overflow_is_normal:
            self._record(bad, step)
        skip = bad | (self.failed_step >= 0)
        torch.where(skip, self.before, self.buffers, out=self.buffers)
        return skip.float()

    def _record(self, bad: Tensor, step: int) -> None:
        self.failed_step.masked_fill_(bad & (self.failed_step < 0), step)


def _flatten_float_buffers(module: nn.Module) -> Tensor:
    """Move all float buffers into one tensor, so that one launch copies or restores them; the module keeps views."""
    owners = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
        if buffer.is_floating_point()
    ]
    if not owners:
        return torch.empty(0)
    flat = torch.cat([buffer.flatten().float() for *_, buffer in owners])
    for (owner, name, buffer), part in zip(owners, flat.split([b.numel() for *_, b in owners]), strict=True):
        owner._buffers[name] = part.view(buffer.shape).data  # .data: writing one must not look like writing all
    return flat
