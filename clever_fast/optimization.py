"""The optimizer, its schedules, and updates that skip themselves on the device when something is not finite."""

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from clever_fast import schedules
from clever_fast.errors import UserError
from clever_fast.methods import Method, Progress
from clever_fast.options import OptimizerForm, Recipe

TORCH: dict[str, dict[str, bool]] = {"fused": {"fused": True}, "foreach": {"foreach": True}}


def parameter_groups(model: Method, recipe: Recipe) -> list[dict[str, Any]]:
    """The trained parameters by how they are scheduled: whether decayed, whether at a constant learning rate.

    Biases and vectors are decayed only where the recipe says so. The last layers of DINO's heads are groups of their
    own, as they start an epoch late and Apex counts steps by group.
    """
    constant, kinds = set(model.constant_lr()), {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            kind = (p in constant, recipe.decay_vectors or p.ndim > 1, ".last_layer." in name)
            kinds.setdefault(kind, []).append(p)
    return [
        {
            "params": params,
            "constant_lr": constant_lr,
            "decayed": decayed,
            "weight_decay": recipe.weight_decay * decayed,
        }
        for (constant_lr, decayed, _), params in kinds.items()
    ]


def make_optimizer(model: Method, recipe: Recipe, form: OptimizerForm = "fused") -> torch.optim.Optimizer:
    """AdamW or SGD in one of torch's forms or Apex's.

    Raises:
        UserError: the form is "apex" and NVIDIA Apex is not installed.
    """
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw":
        return _apex().FusedAdam(groups, lr=0.0) if form == "apex" else torch.optim.AdamW(groups, lr=0.0, **TORCH[form])
    if form == "apex":
        optimizer = _apex().FusedSGD(groups, lr=0.0, momentum=0.9)
    else:
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, **TORCH[form])
    for group in groups:
        for p in group["params"]:  # late layers start later, and neither fused form takes a mixture
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def _apex() -> ModuleType:
    """NVIDIA Apex's optimizers."""
    try:
        return importlib.import_module("apex.optimizers")
    except ImportError as error:
        raise UserError(
            f"execution.optimizer is apex and NVIDIA Apex is not there ({error}): build it with its CUDA extensions "
            "from https://github.com/NVIDIA/apex (PyPI's apex is another project), or use --execution.optimizer fused"
        ) from None


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
    fused = optimizer.defaults.get("fused")
    if fused and not scaler.is_enabled():
        optimizer.found_inf = skip
    if fused or not skip.item():
        scaler.step(optimizer)
    scaler.update()
    for group in optimizer.param_groups:
        if "step" in group and all(p.grad is None for p in group["params"]):
            del group["step"]  # Apex counts a group's steps even while its layers are frozen
