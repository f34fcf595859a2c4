"""A step that was not finite, done once more under observation."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clever_fast import checkpoint
from clever_fast.accelerator import Accelerator
from clever_fast.data import PretrainingBatches, identity
from clever_fast.errors import UserError
from clever_fast.methods import Batch, Progress
from clever_fast.nonfinite.stop import BUNDLE
from clever_fast.ops import selection
from clever_fast.options import Execution, Recipe
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.train_state import TrainState, seed_step


def read_bundle(folder: Path, step: int | None) -> tuple[dict[str, Any], Path]:
    """What a run left of its failed step (the newest, or `step`), and the path of the weights before it.

    Raises:
        UserError: the folder holds none, or one of a version that did not keep enough.
    """
    found = sorted(folder.glob(BUNDLE.format("*") + ".json"), key=_step_of)
    if step is not None:
        found = [path for path in found if _step_of(path) == step]
    if not found:
        raise UserError(f"{folder} holds no {BUNDLE.format('N' if step is None else step)}.json: no step has failed")
    bundle, weights = json.loads(found[-1].read_text()), found[-1].with_suffix(".pth")
    if bundle.get("data", "") is None:
        raise UserError(f"{found[-1]} is of a loader of its own, whose batches cannot be made again here")
    if not ({"data", "processes", "execution"} <= bundle.keys() and weights.exists()):
        raise UserError(f"{found[-1]} and {weights.name} do not say all that a replay needs; the run is of before 0.1")
    return bundle, weights


def replay(folder: Path, *, step: int | None = None, data: Path | None = None, device: str | None = None) -> list[str]:
    """Do a run's failed step again, each rank's share after the other, on the same weights and crops.

    Returns:
        One finding for each rank whose step was not finite again; empty if none was.
    """
    bundle, weights = read_bundle(folder, step)
    state = checkpoint.load(weights)
    recipe = Recipe.from_dict(state["recipe"])
    # Compiled code would hide its modules; the rest stays, as rounding may matter.
    changes = {"compile": "off", "threads": 0, **({"device": device} if device else {})}
    accelerator = Accelerator.from_execution(replace(Execution(**bundle["execution"]), **changes))
    classes = bundle["classes"] and Path(bundle["classes"])
    manifest = open_manifest(data or Path(bundle["data"]), classes=classes, progress=True)
    checkpoint.refuse_other(weights, state, recipe, identity(manifest))
    findings = []
    for rank in range(bundle["processes"]):
        trained = TrainState(recipe, accelerator)
        trained.load_state_dict(state)
        share = (rank, bundle["processes"])
        batches = PretrainingBatches(manifest, recipe, accelerator, bundle["step"], share)
        progress = Progress(bundle["step"], recipe.epochs * batches.steps_per_epoch, batches.steps_per_epoch)
        try:
            batch = next(iter(batches))
            seed_step(recipe, progress.step, rank, accelerator.device)
            if finding := observe(trained, batch, progress):
                findings.append(f"rank {rank}: {finding}" if share[1] > 1 else finding)
        finally:
            batches.close()
    return findings


def observe(state: TrainState, batch: Batch, progress: Progress) -> str | None:
    """Compute a step's loss and gradients. Returns the first thing found that is not finite, in the order of the step:
    a weight, a crop, a module's output, a value of the loss, the gradient of an operator, that of a parameter."""
    method, scaler, accelerator = state.method, state.scaler, state.accelerator
    for name, tensor in method.state_dict().items():
        if not _finite(tensor):
            return f"the weights were not finite before the step: {name}, {_describe(tensor)}"
    for name, crops in batch._asdict().items():
        if crops is not None and not _finite(crops):
            rows = (~crops.isfinite().flatten(1).all(1)).nonzero().flatten()[:8].tolist()
            return f"{name} hold values that are not finite, in rows {rows}"
    with _watched(method) as found, selection.use(accelerator.execution.kernels), accelerator.autocast():
        values = method(batch, progress)
    if found:
        return f"the first module whose output is not finite: {found[0]}"
    for name, value in sorted(values.items(), key=lambda item: item[0] == "loss"):  # the sum after its terms
        if not _finite(value):
            return f"all modules' outputs are finite and the loss's value {name!r} is {value.item()}"
    if failed := _backward(scaler.scale(values["loss"])):
        return failed
    for name, parameter in method.named_parameters():
        if parameter.grad is not None and not _finite(parameter.grad):
            scale = f" at the loss scale {scaler.get_scale():g}" if scaler.is_enabled() else ""
            return f"the loss is finite and the gradient of {name} is not{scale}: {_describe(parameter.grad)}"
    return None


def _backward(loss: Tensor) -> str | None:
    """Differentiate with torch's anomaly detection; the operator whose gradient is NaN, and the line that called it."""
    try:
        with warnings.catch_warnings(record=True) as said, torch.autograd.detect_anomaly():
            warnings.simplefilter("always")
            loss.backward()
    except RuntimeError as error:
        if "returned nan values" not in str(error):
            raise
        calls = [line.strip() for w in said for line in str(w.message).splitlines() if "/clever_fast/" in line]
        return f"the loss is finite and the backward pass is not: {error}" + (f" ({calls[-1]})" if calls else "")
    return None


@contextmanager
def _watched(method: nn.Module) -> Iterator[list[str]]:
    """Fills a list with the modules whose output is not finite, in the order in which they return."""
    found: list[str] = []

    def after(name: str, module: nn.Module, inputs: tuple, output: Any) -> None:
        outputs = [x for x in _tensors(output) if not _finite(x)]
        if outputs:
            came = "not finite either" if any(not _finite(x) for x in _tensors(inputs)) else "finite"
            found.append(f"{name} ({type(module).__name__}), {_describe(outputs[0])}; its input is {came}")

    hooks = [
        module.register_forward_hook(lambda m, i, o, name=name: after(name, m, i, o))
        for name, module in method.named_modules()
        if name  # the whole method's values are looked at by name
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [x for part in value for x in _tensors(part)] if isinstance(value, (tuple, list)) else []


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _describe(tensor: Tensor) -> str:
    """How many of a tensor's values are NaN or infinite."""
    nan, inf = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    shape = " x ".join(map(str, tensor.shape)) or "one value"
    return f"{nan:,} NaN and {inf:,} infinite values of {tensor.numel():,} ({shape})"


def _step_of(path: Path) -> int:
    return int(path.stem.rsplit("_", 1)[1])
