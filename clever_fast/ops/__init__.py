"""Tensor -> Tensor. Each op is a folder: the public docstring in `__init__.py`, the equation in `reference.py`.

Letters used throughout: V student crops, G teacher crops, N images, K prototypes.
"""

from clever_fast.ops.distillation_loss import distillation_loss
from clever_fast.ops.norm_gap import norm_gap
from clever_fast.ops.orthogonality_loss import orthogonality_loss

__all__ = ["distillation_loss", "norm_gap", "orthogonality_loss"]
