"""Tensor -> Tensor. Each op is a folder: the public docstring in `__init__.py`, the equation in `reference.py`, the
fused form or the operator that calls a kernel in `fused.py`; `crop_pairs` is the fused form of both losses.
`selection.py` says which form runs, `extension.py` what was built from csrc/.

Letters used throughout: V student crops, G teacher crops, N images, K prototypes. In the scans: N images, K groups of D
channels, L positions, S states, R the rank of delta. In the two ops on uint8 crops, `deformation` and `photometry`: V
crops of N images, S pixels wide and high.
"""

from clever_fast.ops.cross_scan import cross_scan
from clever_fast.ops.deformation import deformation
from clever_fast.ops.distillation_loss import distillation_loss
from clever_fast.ops.norm_gap import norm_gap
from clever_fast.ops.orthogonality_loss import orthogonality_loss
from clever_fast.ops.photometry import photometry
from clever_fast.ops.selective_scan import selective_scan
from clever_fast.ops.tensor_lists import clip_each_, lerp_each_

__all__ = [
    "clip_each_",
    "cross_scan",
    "deformation",
    "distillation_loss",
    "lerp_each_",
    "norm_gap",
    "orthogonality_loss",
    "photometry",
    "selective_scan",
]
