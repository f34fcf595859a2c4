"""Resume from the newest intact checkpoint of a run's folder."""

import os
import zipfile
from pathlib import Path
from typing import Any

from clever_fast import checkpoint, distributed
from clever_fast.checkpoint import KEPT, NEWEST
from clever_fast.errors import UserError
from clever_fast.options import Recipe, Run


def resume(run: Run, recipe: Recipe, data: dict[str, Any], size: int) -> dict[str, Any] | None:
    """Make the run's folder; the content of its newest intact checkpoint, None for a run that has none.

    Args:
        size: bytes of one checkpoint of this run, for which the disk needs room.

    Raises:
        UserError: the folder cannot be used, its checkpoints are all damaged, or they are another run's.
    """
    if distributed.is_main():
        checkpoint.prepare_folder(run.folder, size, run.keep)
    path = newest(run.folder)
    if path is None:
        return None
    state = checkpoint.load(path)
    checkpoint.refuse_other(path, state, recipe, data)
    return state


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint, None where there is none at all; broken ones are named and renamed.

    Every byte is read and compared with its checksum, so that all ranks skip the same files.

    Raises:
        UserError: there are checkpoints, and all of them are broken.
    """
    broken = {}
    for path in (folder / NEWEST, *sorted(folder.glob(KEPT), reverse=True)):
        if path.exists() and (reason := damage(path)):
            broken[path] = reason
        elif path.exists():
            if distributed.is_main():
                for other, reason in broken.items():
                    os.replace(other, aside := f"{other}.broken")
                    print(f"note: {other} is broken ({reason}), now {aside}; going on from {path}")
            return path
    if broken:
        path, reason = next(iter(broken.items()))
        raise UserError(
            f"{path} is broken ({reason}) and {folder} holds no other: remove it to begin anew, or give another --run. "
            "With --keep 2 there is one before it"
        )
    return None


def damage(path: Path) -> str | None:
    """What is wrong with a file that torch.save wrote, by its checksums; None if nothing is."""
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        return str(error) or "cut short"
    return part and f"{part} differs from its checksum"
