"""Whether a teacher still tells images apart: one warning where it does not."""

import math

from clever_fast.methods import Progress
from clever_fast.options import Recipe

REPORTS = 3  # in a row, before a run is warned about
UNIFORM, CONSTANT = 0.99, 0.01  # shares of ln K


class Collapse:
    """Compares each report's entropies (methods/monitoring.py) with 0 and ln K.

    Nothing is said before the learning rate has warmed up: a network that has learned nothing gives all images alike.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int):
        self.recipe = recipe
        self.begin = recipe.warmup_epochs * steps_per_epoch
        self.alike, self.warned = {"uniform": 0, "constant": 0}, False

    def warning(self, progress: Progress, values: dict[str, float]) -> str | None:
        """What became of the teacher, once, when `REPORTS` reports in a row say the same."""
        if "teacher_entropy" not in values or progress.step <= self.begin or self.warned:
            return None
        most = math.log(self.recipe.method.prototypes)
        entropy, of_mean = values["teacher_entropy"], values["prototype_entropy"]
        self.alike["uniform"] = self.alike["uniform"] + 1 if entropy > UNIFORM * most else 0
        self.alike["constant"] = self.alike["constant"] + 1 if of_mean < CONSTANT * most else 0
        self.warned = max(self.alike.values()) >= REPORTS
        if not self.warned:
            return None
        if self.alike["uniform"] >= REPORTS:
            return (
                f"collapse: the teacher gives every image all prototypes alike (entropy {entropy:.2f} of ln K = "
                f"{most:.2f}): try a lower teacher_temp, a lower center_momentum, or a lower learning rate"
            )
        return (
            f"collapse: the teacher gives every image the same prototype (entropy {of_mean:.2g} of ln K = "
            f"{most:.2f}): try a higher teacher_temp, a longer warm-up, or a lower learning rate"
        )
