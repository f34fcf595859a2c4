"""What a GPU does to crops after DALI has cut them: the augmentations of a view as calls of two ops.

clever_fast.ops has the ops, `deformation` and `photometry`; here are their parameters, as arrays of numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clever_fast.pipelines.views import Augmentation

# Of each op the columns of its parameters in order, and the values that change nothing.
NEUTRAL: dict[str, dict[str, float]] = {
    "deformation": {
        "xx": 1, "xy": 0, "yx": 0, "yy": 1,
        "elastic_y": 0, "elastic_x": 0, "elastic_step_y": 1, "elastic_step_x": 1,
        "elastic_scale_y": 0, "elastic_scale_x": 0,
    },
    "photometry": {
        "brightness": 1, "contrast": 1, "saturation": 1, "hue": 0, "grayscale": 0, "blur_sigma": 0, "solarize": 0,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One call of an op."""

    op: str
    augmentations: tuple[Augmentation, ...]

    def parameters(self, drawn: dict[str, np.ndarray], count: int) -> np.ndarray:
        """(count, columns) float32, from what the augmentations' `sample` returned for as many crops."""
        columns = dict(NEUTRAL[self.op])
        for augmentation in self.augmentations:
            columns |= augmentation.columns(drawn)
        made = np.empty((count, len(columns)), np.float32)
        for column, values in enumerate(columns.values()):
            made[:, column] = values
        return made


def device_steps(augmentations: tuple[Augmentation, ...]) -> tuple[Step, ...]:
    """As few calls as the order of the augmentations allows; the last is photometry, which also normalises."""
    groups: list[list[Augmentation]] = []
    for augmentation in augmentations:
        last = groups[-1][-1] if groups else None
        if last is None or last.op != augmentation.op or last.place >= augmentation.place:
            groups.append([])
        groups[-1].append(augmentation)
    made = [Step(group[0].op, tuple(group)) for group in groups]
    if not made or made[-1].op != "photometry":
        made.append(Step("photometry", ()))
    return tuple(made)
