"""The one training state: a method, its optimizer, and everything a step changes."""

from typing import Any

import torch
from torch import Tensor

from clever_fast import checkpoint, distributed
from clever_fast.accelerator import Accelerator
from clever_fast.methods import Batch, Progress
from clever_fast.nonfinite.guard import FailureGuard
from clever_fast.ops import clip_each_, selection
from clever_fast.optimization import gradient_norms, make_optimizer, schedule, step_unless
from clever_fast.options import Recipe
from clever_fast.tracing import range_, ranged


class TrainState:
    """A recipe in training on one accelerator.

    Attributes:
        method: the module that is trained, on the device; its keys carry no wrapper's prefix.
        model: the same module under DDP where there are several processes.
        optimizer, scaler: torch's; the scaler is enabled for fp16 alone.
        guard: keeps the last good state where a loss or gradient is not finite.

    Args:
        recipe: what is learned; its seed sets the initial weights.
        accelerator: the device and how it computes.

    Raises:
        UserError: the execution does not fit the method's networks, or needs a package that is not installed.
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator):
        self.recipe, self.accelerator = recipe, accelerator
        torch.manual_seed(recipe.seed)
        self.method = accelerator.prepare(recipe.build()).train()
        self.optimizer = make_optimizer(self.method, recipe, accelerator.execution.optimizer)
        self.scaler = accelerator.scaler()
        self.guard = FailureGuard(self.method, accelerator.device, overflow_is_normal=self.scaler.is_enabled())
        self.model = accelerator.parallel(self.method)

    @ranged("step")
    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """One update. Returns scalars by name that stay on the device; nothing here waits for the device."""
        method, optimizer, scaler = self.method, self.optimizer, self.scaler
        seed_step(self.recipe, progress.step, distributed.rank(), self.accelerator.device)
        schedule(optimizer, self.recipe, progress)
        method.zero_grad(set_to_none=True)
        self.guard.remember()
        with selection.use(self.accelerator.execution.kernels):
            with self.accelerator.autocast():
                values = self.model(batch, progress)
            with range_("backward"):
                scaler.scale(self.guard.poison(values["loss"], progress.step)).backward()
            with range_("clip"):
                scaler.unscale_(optimizer)
                gradients, norms = gradient_norms(method)
                skip = self.guard.check(norms, progress.step)
                if self.recipe.clip_grad:
                    clip_each_(gradients, norms, self.recipe.clip_grad)
            method.before_step(progress)
            with range_("optimizer"):
                step_unless(skip, optimizer, scaler)
            with range_("ema"):
                method.after_step(progress, 1 - skip)
        return values | {"gradient_norm": norms.norm()}

    def state_dict(self) -> dict[str, Any]:
        """The optimizer, the scaler and the method, each child module of the method as a key of its own."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **checkpoint.by_child(self.method.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave, or a checkpoint's content: all keys or none."""
        self.method.load_state_dict(checkpoint.method_state(state))
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def checkpoint_bytes(self) -> int:
        """An upper bound of a checkpoint's size: weights, and two moments of each trained parameter."""
        weights = sum(t.numel() * t.element_size() for t in self.method.state_dict().values())
        return weights + 2 * sum(4 * p.numel() for p in self.method.parameters() if p.requires_grad)


def seed_step(recipe: Recipe, step: int, rank: int, device: torch.device) -> None:
    """Drop path is a function of (seed, step, rank), so a resumed run needs no saved generator state."""
    seed = (recipe.seed << 44 | step << 12 | rank) % 2**63
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":  # torch.manual_seed would format a stack for each kind of device that is not there
        torch.cuda.manual_seed(seed)
