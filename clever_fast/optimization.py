"""The optimizer, its schedules, and updates that skip themselves on the device when something is not finite."""

from typing import Any

import torch
from torch import Tensor, nn

from clever_fast import schedules
from clever_fast.methods import Method, Progress
from clever_fast.recipe import Recipe


def parameter_groups(model: Method, recipe: Recipe) -> list[dict[str, Any]]:
    """The trained parameters by how they are scheduled: whether decayed, whether at a constant learning rate.

    Biases and vectors are decayed only where the recipe says so.
    """
    constant, kinds = set(model.constant_lr()), {}
    for p in (p for p in model.parameters() if p.requires_grad):
        kinds.setdefault((p in constant, recipe.decay_vectors or p.ndim > 1), []).append(p)
    return [
        {
            "params": params,
            "constant_lr": constant_lr,
            "decayed": decayed,
            "weight_decay": recipe.weight_decay * decayed,
        }
        for (constant_lr, decayed), params in kinds.items()
    ]


def make_optimizer(model: Method, recipe: Recipe, *, fused: bool = True) -> torch.optim.Optimizer:
    """AdamW or SGD, by default in torch's fused form."""
    groups = parameter_groups(model, recipe)
    trained = [p for group in groups for p in group["params"]]
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, fused=fused)
        for p in trained:  # frozen layers start later, and the fused form takes no mixture
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return optimizer
    return torch.optim.AdamW(groups, lr=0.0, fused=fused)


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, progress: Progress) -> float:
    """Set this step's learning rate and weight decay; returns the learning rate."""
    step = progress.epoch * progress.steps_per_epoch if recipe.lr_per_epoch else progress.step
    warmup_steps = min(recipe.warmup_epochs * progress.steps_per_epoch, progress.steps)
    lr = schedules.cosine(step, steps=progress.steps, start=recipe.lr, end=recipe.min_lr, warmup_steps=warmup_steps)
    weight_decay = schedules.cosine(
        progress.step, steps=progress.steps, start=recipe.weight_decay, end=recipe.weight_decay_end
    )
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr if group["constant_lr"] and step >= warmup_steps else lr
        group["weight_decay"] = weight_decay if group["decayed"] else 0.0
    return lr


def gradient_norms(model: nn.Module) -> tuple[list[Tensor], Tensor]:
    """The gradients that exist and their norms (number of tensors,), float32."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return gradients, torch.stack(torch._foreach_norm(gradients, dtype=torch.float32))


def step_unless(skip: Tensor, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    """Update the weights, or leave them and the optimizer's state alone where `skip` is 1; the host does not look.

    torch's fused optimizers skip a step where their `found_inf` is 1; an enabled scaler (fp16) sets its own. For others
    the host does have to look.
    """
    if not optimizer.defaults["fused"]:
        if skip.item():
            scaler.update()
            return
    elif not scaler.is_enabled():
        optimizer.found_inf = skip
    scaler.step(optimizer)
    scaler.update()


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
    flat = torch.cat([buffer.flatten().float() for *_, buffer in owners])
    for (owner, name, buffer), part in zip(owners, flat.split([b.numel() for *_, b in owners]), strict=True):
        owner._buffers[name] = part.view(buffer.shape).data  # .data: writing one must not look like writing all
    return flat
