"""What a backbone is to the rest of the project: a named constructor of encoders."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from clever_fast.errors import UserError


class Encoder(nn.Module):
    """A network from images to feature vectors: what a backbone builds, and what is evaluated and exported.

    A network of one's own need not derive from this class: `embed_dim` and `forward` are all that training asks of it.

    Attributes:
        embed_dim: D, the length of a feature vector.
    """

    embed_dim: int

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S), of every crop size of the recipe and in any memory format -> features (N, D)."""
        raise NotImplementedError

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> features of their places (N, D, h, w). For segmentation and `show pca` alone.

        Raises:
            UserError: this network has none.
        """
        raise UserError(f"a {type(self).__name__} has no forward_features, so no features of places in an image")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass. For `Execution.checkpointing` alone.

        Raises:
            UserError: this network cannot.
        """
        raise UserError(f"a {type(self).__name__} cannot recompute activations: use --execution.checkpointing false")


@dataclass(frozen=True)
class Backbone:
    """A named constructor of encoders.

    Args:
        name: timm's where timm has this network. Checkpoints of backbones outside `BACKBONES` keep the import path of
            `build` instead, so that has to be a function or class at the top of a module.
        build: `build(drop_path)` gives an `Encoder`, or a module with its `embed_dim` and `forward`, with new weights.
        label: as papers write it; the name where empty.
        in_timm: `timm.create_model(name, num_classes=0)` takes the same weights.
        drop_path: the student's stochastic depth rate in the released recipes; the teacher's is always 0.
        patch: pixels that the sides of its images are a multiple of.
    """

    name: str
    build: Callable[[float], nn.Module]
    label: str = ""
    in_timm: bool = False
    drop_path: float = 0.0
    patch: int = 1

    def __str__(self) -> str:
        return self.name
