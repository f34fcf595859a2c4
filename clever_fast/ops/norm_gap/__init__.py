"""PReg: the gap between two heads' squared parameter norms."""

from collections.abc import Sequence

from torch import Tensor

from clever_fast.ops import selection
from clever_fast.ops.norm_gap import reference
from clever_fast.tracing import ranged


@ranged("norm_gap")
def norm_gap(left: Sequence[Tensor], right: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """| sum over left of ||p||^2 - sum over right of ||q||^2 |, one total for each side, and the two totals.

    Args:
        left: parameters of any shapes, float32.
        right: parameters of any shapes, float32.

    Returns:
        The gap, a float32 scalar; its gradient is +-2p on one side and -+2q on the other, 0 on both where the totals
        are equal. The totals, (2,) float32, without a gradient: for the log, at no further cost.

    Source: CLeVER, equation L_PReg; parameters, squared and not rooted, as in the released code.
    """
    if selection.form((*left, *right)[0], on_cpu=True) == "fused":
        from clever_fast.ops.norm_gap import fused

        gap, totals = fused.norm_gap([*left], [*right])
        return gap, totals.detach()
    return reference.norm_gap(left, right)
