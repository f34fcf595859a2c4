"""What is evaluated: an encoder out of a run's folder, or out of a file of weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from clever_fast import checkpoint
from clever_fast.errors import UserError
from clever_fast.methods import Method
from clever_fast.recipe import Recipe


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
        from clever_fast.encoders.weights import read_encoder

        return Encoder(*read_encoder(weights, backbone), origin=str(weights))
    if backbone is not None:
        raise UserError(f"--backbone {backbone} belongs to --weights; a run knows its own")
    method, recipe, step = load_run(run)
    return Encoder(method.encoder, method.parts(), recipe.global_size, f"{run}, step {step}")


def with_parts(encoder: Encoder, names: Sequence[str]) -> Encoder:
    """The same encoder with only the named parts of its features.

    Raises:
        UserError: it has no part of that name.
    """
    for name in names:
        if name not in encoder.parts:
            raise UserError(
                f"the features of {encoder.origin} have no part {name!r}; there is {', '.join(encoder.parts)}"
            )
    return replace(encoder, parts={name: encoder.parts[name] for name in names})


def untrained(run: Path) -> Encoder:
    """The encoder that a run began with."""
    recipe = Recipe.from_dict(checkpoint.load(_checkpoint(run))["recipe"])
    torch.manual_seed(recipe.seed)
    method = recipe.build()
    return Encoder(method.encoder, method.parts(), recipe.global_size, f"{recipe.backbone.name}, untrained")


def load_run(run: Path) -> tuple[Method, Recipe, int]:
    """The method of a run with all its weights, on the CPU, its recipe, and the step it was saved at.

    Raises:
        UserError: no checkpoint there, or one that does not fit its own recipe.
    """
    return checkpoint.load_method(_checkpoint(run))


def _checkpoint(run: Path) -> Path:
    path = run / checkpoint.NEWEST
    if not path.exists():
        raise UserError(f"{run} holds no {checkpoint.NEWEST}; give the folder that pretrain's --run named")
    return path
