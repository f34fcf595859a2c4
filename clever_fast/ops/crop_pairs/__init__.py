"""Fused forms of the losses over all pairs of a teacher's and a student's crop; imports Triton."""

from clever_fast.errors import UserError

try:
    import triton  # noqa: F401
except ImportError as error:
    raise UserError(
        "the fused losses need Triton, which torch's CUDA builds bring along: pip install triton, or choose "
        "--execution.kernels reference"
    ) from error

from clever_fast.ops.crop_pairs.operators import crop_pairs_loss

__all__ = ["crop_pairs_loss"]
