"""Between two reports nothing asks a device for a value: counted on a CPU by the operators that would wait."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clever_fast.accelerator import Accelerator
from clever_fast.options import EXECUTIONS
from clever_fast.performance.timing import Stepper

aten = torch.ops.aten
# What copies a value to the host, or makes an output whose shape depends on values.
WAITING = {
    aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten.unique_dim,
    aten._unique2, aten.unique_consecutive, aten.repeat_interleave, aten.bincount, aten.allclose,
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Counts operators that would make the host wait for a GPU; `on_host` lie on the host also there."""

    def __init__(self, on_host=()):
        super().__init__()
        self.on_host, self.found = {id(t) for t in on_host}, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        masked = function.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
            x.dtype == torch.bool for x in tensors[1:]
        )
        if (function.overloadpacket in WAITING or masked) and not (tensors and id(tensors[0]) in self.on_host):
            self.found.append(str(function))
        return result


def stepper(recipe, execution: str) -> Stepper:
    return Stepper(
        recipe, Accelerator.from_execution(replace(EXECUTIONS[execution], device="cpu", precision="fp32", threads=1))
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("method", ["dino", "clever"])
def test_a_fast_step_never_waits(small, method, optimizer):
    trainer = stepper(small(method, optimizer=optimizer), "fast")
    with Waits() as waits:
        trainer.lap(trainer.noise, 2)
    assert waits.found == []


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("method", ["dino", "clever"])
def test_a_plain_step_waits_once_a_gradient_for_its_norm_and_once_for_the_verdict(small, method, optimizer):
    """AdamW's own step counts lie on the host also on a GPU, so reading them costs nothing."""
    trainer = stepper(small(method, optimizer=optimizer), "plain")
    state = trainer.state.optimizer.state.values()
    counts = [values["step"] for values in state if "step" in values]
    with Waits(counts) as waits:
        trainer.lap(trainer.noise, 1)
    gradients = sum(p.grad is not None for p in trainer.state.method.parameters())
    assert gradients > 30
    assert len(waits.found) == gradients + 1
