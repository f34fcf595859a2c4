"""What a method is to the trainer: a module whose forward returns losses, and two hooks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from clever_fast.errors import UserError
from clever_fast.models import Backbone


class Batch(NamedTuple):
    """The crops of N images of one step, crop-major: rows [v*N, (v+1)*N) of a tensor are crop v of the N images.

    Crops are normalised, NCHW in shape and channels-last in memory; float32 or float16.
    """

    global_crops: Tensor  # (G*N, 3, S, S)
    local_crops: Tensor | None  # (L*N, 3, s, s)
    labels: Tensor  # (N,) int64, for logging only

    @property
    def size(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Progress:
    """Where training stands before `step`, counted from 0."""

    step: int
    steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch


@dataclass(frozen=True)
class Metric:
    """A scalar that a method returns, and how it is shown.

    Args:
        name: its key in what `Method.forward` returns.
        label: what people read; the name where empty.
        unit: such as nats.
        panel: title of the plot that it shares with others; none where empty.
        live: whether the console shows it at every report.
        watched: whether `clever-fast watch` draws its course; what is live is drawn in any case.
    """

    name: str
    label: str = ""
    unit: str = ""
    panel: str = ""
    live: bool = False
    watched: bool = False


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The settings of a method: a frozen dataclass, saved in checkpoints, that builds the method.

    Attributes:
        name: of the method, for people and in the tables of recipes.
        local_crops: whether it learns from local crops.
        protocol: by which its released code is evaluated, a name of `evaluate.protocol.PROTOCOLS`.
        metrics: what it logs beside "loss", in the order in which it is shown.
    """

    name: ClassVar[str]
    local_crops: ClassVar[bool] = True
    protocol: ClassVar[str] = "dino"
    metrics: ClassVar[tuple[Metric, ...]] = ()

    def build(self, backbone: Backbone, drop_path: float) -> "Method":
        """The method with new weights on the CPU; `drop_path` is the stochastic depth rate of the trained network."""
        raise NotImplementedError


class Method(nn.Module):
    """What is trained. `forward` turns a batch into losses; the hooks are everything else a method may do to a step."""

    encoder: nn.Module  # what is evaluated and exported: images (N, 3, S, S) -> features (N, D)

    def parts(self) -> dict[str, slice]:
        """The named parts of a feature vector that are evaluated separately; "all" is always there."""
        return {"all": slice(None)}

    def networks(self) -> Iterable[nn.Module]:
        """The backbones, which take one crop size a call; what may be compiled or checkpointed. The encoder alone where
        a method does not say otherwise."""
        return (self.encoder,)

    def constant_lr(self) -> Iterable[nn.Parameter]:
        """Parameters whose learning rate stays at its peak after the warm-up."""
        return ()

    def forward(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Scalars by name. "loss" is differentiated; all are logged."""
        raise NotImplementedError

    def before_step(self, progress: Progress) -> None:
        """Called when gradients are final (all-reduced and clipped)."""

    def after_step(self, progress: Progress, applied: Tensor) -> None:
        """Called when weights are final. `applied` is a float32 scalar on the device: 0 where the step was skipped."""


def split_width(ratio: float, features: int) -> int:
    """Channels of the invariant representation: the share `ratio` of all, floored.

    Raises:
        UserError: one of the two parts would be empty.
    """
    width = int(ratio * features)
    if not 0 < width < features:
        raise UserError(f"separation_ratio {ratio} leaves one part of {features} channels empty; choose one between")
    return width
