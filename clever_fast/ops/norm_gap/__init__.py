"""PReg: the gap between two heads' squared parameter norms."""

from collections.abc import Sequence

from torch import Tensor

from clever_fast.ops import selection
from clever_fast.ops.norm_gap import reference
from clever_fast.ranges import ranged


@ranged("norm_gap")
def norm_gap(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """| sum over left of ||p||^2 - sum over right of ||q||^2 |, one total for each side.

    Args:
        left: parameters of any shapes, float32.
        right: parameters of any shapes, float32.

    Returns:
        A float32 scalar. The gradient is +-2p on one side and -+2q on the other, 0 on both where the totals are equal.

    Source: CLeVER, equation L_PReg; parameters, squared and not rooted, as in the released code.
    """
    if selection.form((*left, *right)[0]) == "fused":
        from clever_fast.ops.norm_gap import fused

        return fused.norm_gap([*left], [*right])[0]
    return reference.norm_gap(left, right)
