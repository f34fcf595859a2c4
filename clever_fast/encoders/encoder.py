"""Trained encoders: out of a run's folder, or out of a file of weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clever_fast import checkpoint
from clever_fast.encoders.networks import NetworkName
from clever_fast.encoders.weights import encoder_of, read_encoder
from clever_fast.errors import UserError
from clever_fast.methods import Method
from clever_fast.models import Encoder
from clever_fast.options import Recipe


class TrainedEncoder(Encoder):
    """A network with weights, and what one has to know to use it.

    Args:
        network: images (N, 3, S, S) -> features (N, D).
        parts: slices of a feature vector by name; "all" is always there, CLeVER and DDCL have "IR" and "EF" too.
        size: pixels of the side of the images that it was trained on.
        origin: where it comes from, for people.
        protocol: by which the released code of its method is evaluated: dino or simsiam.
    """

    def __init__(self, network: nn.Module, parts: dict[str, slice], size: int, origin: str, protocol: str = "dino"):
        super().__init__()
        self.network: Any = network
        self.parts, self.size, self.origin, self.protocol = parts, size, origin, protocol
        width: Any = network.embed_dim
        self.embed_dim = int(width)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, S, S) -> features (N, embed_dim)."""
        return self.network(images)

    def forward_features(self, images: Tensor) -> Tensor:
        """What the network's own `forward_features` gives: a ViT's tokens (N, 1 + h w, D), else (N, D, h, w)."""
        return self.network.forward_features(images)

    def with_parts(self, names: Sequence[str]) -> "TrainedEncoder":
        """The same network with only the named parts of its features.

        Raises:
            UserError: it has no part of that name.
        """
        for name in names:
            if name not in self.parts:
                raise UserError(
                    f"the features of {self.origin} have no part {name!r}; there is {', '.join(self.parts)}"
                )
        return self.replace(parts={name: self.parts[name] for name in names})

    def replace(self, **changes: Any) -> "TrainedEncoder":
        """An encoder that differs in the arguments named; the rest is shared."""
        own = {name: getattr(self, name) for name in ("network", "parts", "size", "origin", "protocol")}
        return TrainedEncoder(**(own | changes))


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """Where an encoder comes from; what every command that takes one asks for.

    Args:
        run: folder of a pretraining run.
        weights: a file of weights instead of a run, of this project or another.
        backbone: the network that the weights are of, where they do not tell.
        network: student or teacher, of a run or a file that has both; by default the one that is evaluated.
    """

    run: Path | None = None
    weights: Path | None = None
    backbone: str | None = None
    network: NetworkName | None = None

    def load(self) -> TrainedEncoder:
        """The encoder on the CPU in eval mode.

        Raises:
            UserError: neither or both are given, or the weights do not fit.
        """
        if self.run is not None and self.weights is not None:
            raise UserError("name what to evaluate: either --run RUN or --weights FILE, not both")
        if self.weights is not None:
            network, parts, size, protocol = read_encoder(self.weights, self.backbone, self.network)
            refuse_not_finite(network, self.weights)
            return TrainedEncoder(network, parts, size, str(self.weights), protocol)
        if self.run is None:
            raise UserError("name what to evaluate: either --run RUN or --weights FILE")
        if self.backbone is not None:
            raise UserError(f"--backbone {self.backbone} belongs to --weights; a run knows its own")
        method, recipe, step = load_run(self.run)
        network = encoder_of(method, recipe, self.network).eval()
        refuse_not_finite(network, self.run)
        origin = f"{self.run}, step {step}" + f", {self.network}" * bool(self.network)
        return TrainedEncoder(network, method.parts(), recipe.global_size, origin, recipe.method.protocol)


def load_encoder(source: str | Path, backbone: str | None = None, network: NetworkName | None = None) -> TrainedEncoder:
    """The encoder of a run's folder or of a file of weights, on the CPU in eval mode.

    Args:
        source: folder of a pretraining run, or a file of weights that `read_encoder` knows.
        backbone: name of the network that the weights are of, where they do not tell.
        network: student or teacher, where there are both; None for the one that is evaluated.

    Raises:
        UserError: there is no such run or file, or its weights do not fit.
    """
    path = Path(source)
    is_run = path.is_dir()
    run, weights = (path, None) if is_run else (None, path)
    return EncoderSource(run=run, weights=weights, backbone=backbone, network=network).load()


def refuse_not_finite(network: nn.Module, source: Path) -> None:
    """Raise UserError where a weight is NaN or infinite, as a number computed with it would mean nothing."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise UserError(
                f"{source}: {count:,} of {tensor.numel():,} values of {name} are not finite: take weights from before "
                "the training failed"
            )


def untrained(run: Path) -> TrainedEncoder:
    """The encoder that a run began with."""
    recipe = Recipe.from_dict(checkpoint.load(_checkpoint(run))["recipe"])
    torch.manual_seed(recipe.seed)
    method = recipe.build()
    origin = f"{recipe.backbone.name}, untrained"
    return TrainedEncoder(method.encoder, method.parts(), recipe.global_size, origin, recipe.method.protocol)


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
