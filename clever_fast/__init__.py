"""Fast self-supervised pretraining of CLeVER (contrastive learning via equivariant representation).

    import clever_fast as cf

    recipe = cf.recipe("clever_vits16_in100", epochs=100)
    cf.pretrain(recipe, cf.Execution(), cf.Run(data="imagenet100", folder="runs/a"))
    encoder = cf.load_encoder("runs/a")  # an nn.Module: images (N, 3, S, S) -> features (N, encoder.embed_dim)

Every name below is imported at its first use, so that `import clever_fast` itself loads nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clever_fast import ops as ops
    from clever_fast.data import Batches as Batches
    from clever_fast.encoders.encoder import TrainedEncoder as TrainedEncoder
    from clever_fast.encoders.encoder import load_encoder as load_encoder
    from clever_fast.errors import UserError as UserError
    from clever_fast.methods import Batch as Batch
    from clever_fast.methods import Clever as Clever
    from clever_fast.methods import Ddcl as Ddcl
    from clever_fast.methods import Dino as Dino
    from clever_fast.methods import Method as Method
    from clever_fast.methods import MethodConfig as MethodConfig
    from clever_fast.methods import Metric as Metric
    from clever_fast.methods import Progress as Progress
    from clever_fast.methods import SimSiam as SimSiam
    from clever_fast.models import BACKBONES as BACKBONES
    from clever_fast.models import Backbone as Backbone
    from clever_fast.models import Encoder as Encoder
    from clever_fast.nonfinite.stop import NotFiniteError as NotFiniteError
    from clever_fast.options import Execution as Execution
    from clever_fast.options import Recipe as Recipe
    from clever_fast.options import Run as Run
    from clever_fast.pipelines.policies import BAUG as BAUG
    from clever_fast.pipelines.policies import CAUG as CAUG
    from clever_fast.pipelines.policies import CAUG_PLUS as CAUG_PLUS
    from clever_fast.pipelines.policies import MOCO_BAUG as MOCO_BAUG
    from clever_fast.pipelines.policies import MOCO_CAUG as MOCO_CAUG
    from clever_fast.pipelines.policies import MOCO_CAUG_PLUS as MOCO_CAUG_PLUS
    from clever_fast.pipelines.policies import Policy as Policy
    from clever_fast.pipelines.views import View as View
    from clever_fast.recipes import RECIPES as RECIPES
    from clever_fast.recipes import recipe as recipe
    from clever_fast.train import train

    pretrain = train

__version__ = "0.1.0"

_MODULES = {
    "data": ("Batches",),
    "encoders.encoder": ("TrainedEncoder", "load_encoder"),
    "errors": ("UserError",),
    "methods": ("Batch", "Clever", "Ddcl", "Dino", "Method", "MethodConfig", "Metric", "Progress", "SimSiam"),
    "models": ("BACKBONES", "Backbone", "Encoder"),
    "nonfinite.stop": ("NotFiniteError",),
    "options": ("Execution", "Recipe", "Run"),
    "pipelines.policies": ("BAUG", "CAUG", "CAUG_PLUS", "MOCO_BAUG", "MOCO_CAUG", "MOCO_CAUG_PLUS", "Policy"),
    "pipelines.views": ("View",),
    "recipes": ("RECIPES", "recipe"),
    "train": ("pretrain",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}
_OTHER_NAMES = {"pretrain": "train"}  # where they are defined

__all__ = ["__version__", "ops", *_PLACES]


def __getattr__(name: str) -> Any:
    if name == "ops":
        return import_module("clever_fast.ops")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"clever_fast.{_PLACES[name]}"), _OTHER_NAMES.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
