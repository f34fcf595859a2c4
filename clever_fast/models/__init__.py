"""Backbones and heads. `BACKBONES` is the table from a name on the command line to a backbone."""

from clever_fast.errors import find
from clever_fast.models.backbone import Backbone, Encoder
from clever_fast.models.batch_norm import share_statistics
from clever_fast.models.heads import DinoHead, Predictor, Projector
from clever_fast.models.resnet import RESNETS
from clever_fast.models.vit import VITS
from clever_fast.models.vmamba import VMAMBAS

BACKBONES: dict[str, Backbone] = {backbone.name: backbone for backbone in (*RESNETS, *VITS, *VMAMBAS)}

# names that files of before timm's were taken for all keep
FORMER_NAMES = {name.removesuffix("_224"): name for name in BACKBONES if name.endswith("_224")}


def find_backbone(name: str) -> Backbone:
    """The backbone of this name, also of a former one.

    Raises:
        UserError: there is none; names the nearest.
    """
    return find("backbone", FORMER_NAMES.get(name, name), BACKBONES)


__all__ = [
    "BACKBONES",
    "Backbone",
    "DinoHead",
    "Encoder",
    "Predictor",
    "Projector",
    "find_backbone",
    "share_statistics",
]
