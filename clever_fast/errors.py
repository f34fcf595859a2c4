"""The one exception that a user's own input can cause, and names that are looked up."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """Input that the user can correct. The message names the value and the way out, in one line.

    The command line prints it without a traceback and leaves with exit code 2.
    """


def find(kind: str, name: str, table: Mapping[str, T]) -> T:
    """The entry of this name.

    Args:
        kind: what the table holds, in the singular, for the message.

    Raises:
        UserError: there is none; names the nearest, or all where none is near.
    """
    if name not in table:
        hint = did_you_mean(name, table) or f"; there are {', '.join(table)}"
        raise UserError(f"no {kind} is called {name!r}{hint}")
    return table[name]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message that names the nearest of the known words; empty where none is near."""
    near = get_close_matches(word, list(known), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
