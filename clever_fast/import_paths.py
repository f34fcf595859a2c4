"""Classes and functions outside this project's tables, named in files by module and name.

Reading a name never imports a module: what a file says is looked up among the modules that are imported already.
"""

import sys
from typing import Any

from clever_fast.errors import UserError


def import_path(thing: Any) -> str:
    """`module:name` of a class or function.

    Raises:
        UserError: it cannot be found again under that name, as a lambda or a class inside a function cannot.
    """
    path = f"{getattr(thing, '__module__', None)}:{getattr(thing, '__qualname__', None)}"
    try:
        found = find(path)
    except UserError:
        found = None
    if found is not thing:
        raise UserError(
            f"{thing!r} cannot be named in a checkpoint: define it at the top of a module, not in a function or "
            "as a lambda"
        )
    return path


def find(path: str) -> Any:
    """The class or function that `import_path` named.

    Raises:
        UserError: its module is not imported, or has no such name.
    """
    module, _, name = path.partition(":")
    if module not in sys.modules:
        raise UserError(f"{path} is defined in a module that is not imported: import {module} before you load this")
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise UserError(f"the module {module} has no {name}, which this file was written with")
    return found
