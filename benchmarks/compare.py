"""Two sets of records side by side, as ratios, where the conditions are equal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clever_fast.benchmarks.records import CONDITIONS, WORK, differences, read, training
from clever_fast.errors import UserError


@dataclass(frozen=True)
class Pair:
    """One recipe's clock in both sets. Rates are images/s."""

    benchmark: str
    recipe: str
    a: dict
    b: dict
    unequal: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """How many times as fast b is as a."""
        return self.b["images_per_second"]["median"] / self.a["images_per_second"]["median"]

    @property
    def told_apart(self) -> bool:
        """Whether the rounds of one are all faster than those of the other."""
        one, other = self.a["images_per_second"], self.b["images_per_second"]
        return one["high"] < other["low"] or other["high"] < one["low"]


def compare(a: str, b: str, records: Path, *, anyway: bool = False) -> list[Pair]:
    """Pairs of the newest records of a and b, each a file or folder of records, or an execution's name in `records`.

    Raises:
        UserError: nothing in common, or conditions that differ and not `anyway`.
    """
    by_execution = not Path(a).exists() and not Path(b).exists()
    left, right = (_of_execution(name, records) if by_execution else read(Path(name)) for name in (a, b))
    names = ("benchmark", "recipe") if by_execution else ("benchmark", "recipe", "execution")
    both = [{tuple(r[name] for name in names): r for r in training(side)} for side in (left, right)]
    conditions = [name for name in (*CONDITIONS, *WORK) if not (by_execution and name == "settings")]
    pairs = [
        Pair(*key[:2], row, both[1][key], tuple(differences(row, both[1][key], conditions)))
        for key, row in both[0].items()
        if key in both[1]
    ]
    if not pairs:
        raise UserError(f"{a} and {b} have no {', '.join(names)} in common: there is nothing to compare")
    unequal = sorted({text for pair in pairs for text in pair.unequal})
    if unequal and not anyway:
        more = f" and {len(unequal) - 5} more" if len(unequal) > 5 else ""
        raise UserError(
            f"{a} and {b} were measured under different conditions: {'; '.join(unequal[:5])}{more}. "
            "Measure them alike, or compare them --anyway"
        )
    return pairs


def _of_execution(name: str, records: Path) -> list[dict]:
    all_of_them = training(read(records))
    if found := [r for r in all_of_them if r["execution"] == name]:
        return found
    known = ", ".join(sorted({r["execution"] for r in all_of_them})) or "none"
    raise UserError(f"{name} is neither a file of records nor an execution in {records} (there: {known})")
