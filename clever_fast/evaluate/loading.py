"""What is evaluated: an encoder out of a run's folder, or out of a file of weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from clever_fast import checkpoint
from clever_fast.errors import UserError
from clever_fast.methods import Method
from clever_fast.recipe import Recipe

LISTED = 5  # keys that an error names


@dataclass(frozen=True)
class Encoder:
    """A network whose features every protocol takes alike."""

    network: nn.Module  # images (N, 3, S, S) -> features (N, D)
    parts: dict[str, slice]  # of a feature vector, by name; "all" is always there
    size: int  # pixels of the images it takes
    origin: str  # where it came from, for people


def load_encoder(run: Path | None = None, weights: Path | None = None, backbone: str | None = None) -> Encoder:
    """The encoder of a run, or the one that a file of weights holds, on the CPU.

    Args:
        run: folder of a pretraining run.
        weights: a checkpoint of this or another project.
        backbone: the network the weights are of, where they do not tell.

    Raises:
        UserError: neither or both are given, or the weights do not fit.
    """
    if (run is None) == (weights is None):
        raise UserError("name what to evaluate: either --run RUN or --weights FILE")
    if run is None:
        from clever_fast.weights import read_encoder

        return Encoder(*read_encoder(weights, backbone), origin=str(weights))
    if backbone is not None:
        raise UserError(f"--backbone {backbone} belongs to --weights; a run knows its own")
    method, recipe, step = load_run(run)
    return Encoder(method.encoder, method.parts(), recipe.global_size, f"{run}, step {step}")


def untrained(run: Path) -> Encoder:
    """The encoder that a run began with."""
    recipe = Recipe.from_dict(_state(run)["recipe"])
    torch.manual_seed(recipe.seed)
    method = recipe.method.build(recipe.backbone, recipe.drop_path)
    return Encoder(method.encoder, method.parts(), recipe.global_size, f"{recipe.backbone.name}, untrained")


def load_run(run: Path) -> tuple[Method, Recipe, int]:
    """The method of a run with all its weights, on the CPU, its recipe, and the step it was saved at.

    Raises:
        UserError: no checkpoint there, or one that does not fit its own recipe.
    """
    state = _state(run)
    recipe = Recipe.from_dict(state["recipe"])
    method, saved = recipe.method.build(recipe.backbone, recipe.drop_path), checkpoint.method_state(state)
    expected = method.state_dict()
    odd = sorted(expected.keys() ^ saved.keys()) or [
        name for name, tensor in expected.items() if tensor.shape != saved[name].shape
    ]
    if odd:
        more = f" and {len(odd) - LISTED} more" if len(odd) > LISTED else ""
        raise UserError(
            f"{run / checkpoint.NEWEST} is of another architecture than its recipe's {recipe.backbone.name}: "
            f"missing, unknown or of another shape are {', '.join(odd[:LISTED])}{more}"
        )
    method.load_state_dict(saved)
    return method, recipe, state["step"]


def _state(run: Path) -> dict:
    path = run / checkpoint.NEWEST
    if not path.exists():
        raise UserError(f"{run} holds no {checkpoint.NEWEST}; give the folder that pretrain's --run named")
    return checkpoint.load(path)
