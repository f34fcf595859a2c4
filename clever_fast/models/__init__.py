"""Backbones and heads. `BACKBONES` is the table from a name on the command line to a backbone."""

from clever_fast.models.backbone import Backbone
from clever_fast.models.batch_norm import share_statistics
from clever_fast.models.heads import DinoHead, Predictor, Projector
from clever_fast.models.resnet import RESNETS
from clever_fast.models.vit import VITS
from clever_fast.models.vmamba import VMAMBAS

BACKBONES: dict[str, Backbone] = {backbone.name: backbone for backbone in (*RESNETS, *VITS, *VMAMBAS)}

__all__ = ["BACKBONES", "Backbone", "DinoHead", "Predictor", "Projector", "share_statistics"]
