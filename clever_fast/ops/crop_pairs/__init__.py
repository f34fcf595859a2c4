"""Fused forms of the losses over all pairs of a teacher's and a student's crop; imports Triton."""

from clever_fast.ops.crop_pairs.operators import crop_pairs_loss

__all__ = ["crop_pairs_loss"]
