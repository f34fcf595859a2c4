"""Methods: what is learned from a batch. One file each."""

from clever_fast.methods.clever import Clever, CleverMethod
from clever_fast.methods.ddcl import Ddcl, DdclMethod
from clever_fast.methods.dino import Dino, DinoMethod
from clever_fast.methods.method import Batch, Method, MethodConfig, Metric, Progress
from clever_fast.methods.simsiam import SimSiam, SimSiamMethod

METHODS: dict[str, type[MethodConfig]] = {config.name: config for config in (Dino, Clever, SimSiam, Ddcl)}

__all__ = [
    "METHODS",
    "Batch",
    "Clever",
    "CleverMethod",
    "Ddcl",
    "DdclMethod",
    "Dino",
    "DinoMethod",
    "Method",
    "MethodConfig",
    "Metric",
    "Progress",
    "SimSiam",
    "SimSiamMethod",
]
