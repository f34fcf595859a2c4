"""Fields of dataclasses that a user sets, checked against their types and the bounds that a table gives them."""

import math
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from clever_fast.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """The numbers between two ends; an open end is not one of them itself."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def hold(self, value: float) -> bool:
        low = self.low < value if self.open_low else self.low <= value
        return low and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        high = f"{'below' if self.open_high else 'at most'} {self.high:g}"
        return " and ".join([low] * (self.low > -math.inf) + [high] * (self.high < math.inf))


COUNT = Bounds(1)
NOT_NEGATIVE = Bounds(0)
ABOVE_ZERO = Bounds(0, open_low=True)
SHARE = Bounds(0, 1)
BELOW_ONE = Bounds(0, 1, open_high=True)
WITHIN = Bounds(0, 1, open_low=True, open_high=True)
SEED = Bounds(0, 2**63 - 1)


def validate(config: Any, prefix: str, bounds: dict[str, Bounds]) -> None:
    """See that every field of a dataclass holds a value of its type within its bounds.

    Args:
        config: the dataclass.
        prefix: what the command line writes before its fields, such as "recipe.".
        bounds: of its numbers, and of the numbers within its tuples, by field.

    Raises:
        UserError: one does not; names the field, its value and what it must be.
    """
    hints = _hints(type(config))
    for field in fields(config):
        value, kinds = getattr(config, field.name), hints[field.name]
        wrong = _wrong(value, kinds, bounds.get(field.name))
        if wrong:
            raise UserError(f"{prefix}{field.name} is {value}; it must be {wrong}")


def _wrong(value: Any, kinds: tuple[Any, ...], bounds: Bounds | None) -> str:
    """What a value of one of some kinds must be; empty where it is that."""
    if value is None and NoneType in kinds:
        return ""
    (kind, *others) = [kind for kind in kinds if kind is not NoneType]
    if get_origin(kind) is Literal and not others:
        return "" if value in get_args(kind) else " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple and not others:
        if not isinstance(value, (tuple, list)):
            return "a list"
        return next(filter(None, (_wrong(item, _kinds(get_args(kind)[0]), bounds) for item in value)), "")
    if kind is bool:
        return "" if isinstance(value, bool) else "true or false"
    if kind in (int, float) and not others:
        wanted, called = (Integral, "a whole number") if kind is int else (Real, "a number")
        if isinstance(value, bool) or not isinstance(value, wanted):
            return f"{called}{f' {bounds}' if bounds else ''}"
        if not math.isfinite(value) or (bounds and not bounds.hold(value)):
            return str(bounds) if bounds else "finite"
    return ""


@cache
def _hints(kind: type) -> dict[str, tuple[Any, ...]]:
    return {name: _kinds(hint) for name, hint in get_type_hints(kind).items()}


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
