"""Methods: what is learned from a batch. One file each."""

from clever_fast.methods.clever import Clever, CleverMethod
from clever_fast.methods.dino import Dino, DinoMethod
from clever_fast.methods.method import Batch, Method, Progress

METHODS = {config.name: config for config in (Dino, Clever)}

__all__ = ["METHODS", "Batch", "Clever", "CleverMethod", "Dino", "DinoMethod", "Method", "Progress"]
