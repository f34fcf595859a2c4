"""Where what was learned about a data set is kept: beside it, or in the user's cache folder."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def load_or_build(
    root: Path | str,
    name: str,
    load: Callable[[Path], T | None],
    build: Callable[[Path | None], T],
    *,
    force: bool = False,
) -> T:
    """What `load` finds in the file `name` of either place, else what `build` makes; one process builds, others wait.

    root: the folder of the data, or its URL, beside which nothing can be kept. load: returns None where there is
    nothing or it does not hold any more. build: called with the file to write, None if neither place can be written.
    """
    cache = _cache(root) / name
    places = [cache] if isinstance(root, str) else [root / ".clever_fast" / name, cache]

    def find() -> T | None:
        return None if force else next((found for found in map(load, places) if found is not None), None)

    found = find()
    if found is not None:
        return found
    with _exclusive(places) as file:
        found = find()  # another process may have built it while this one waited for the lock
        return build(file) if found is None else found


@contextmanager
def _exclusive(places: list[Path]) -> Iterator[Path | None]:
    """Holds the lock of the first place that can be written and yields that place; None if there is none."""
    for file in places:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = open(file.with_suffix(".lock"), "w")  # noqa: SIM115
        except OSError:
            continue
        with lock:
            with suppress(OSError):  # a file system without locks: the rename is atomic, so work is only done twice
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield file
        return
    yield None


def _cache(root: Path | str) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "clever_fast" / short_hash(os.path.realpath(root) if isinstance(root, Path) else root)


def short_hash(text: str) -> str:
    return blake2b(os.fsencode(text), digest_size=8).hexdigest()
