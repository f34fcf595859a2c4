"""Checkpoints that are either whole or not there."""

import errno
import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clever_fast.environment import commit
from clever_fast.errors import UserError
from clever_fast.methods import Method
from clever_fast.options import Recipe, with_former_defaults, with_policy_numbers

FORMAT = 1
NEWEST, TEMPORARY = "checkpoint.pth", "checkpoint.tmp"
KEPT = "checkpoint-*.pth"  # by their steps
LISTED = 5  # keys that an error names


def content(state: dict[str, Any], *, recipe: Recipe, data: dict[str, Any], step: int, epoch: int) -> dict[str, Any]:
    """A checkpoint's content: `TrainState.state_dict()` and what it belongs to; `step` and `epoch` are the next."""
    return {
        "format": FORMAT,
        "commit": commit(),
        "recipe": recipe.as_dict(),
        "data": data,
        "step": step,
        "epoch": epoch,
        **state,
    }


def save(folder: Path, state: dict[str, Any], *, keep: int = 1, given_up: Callable[[], bool] = lambda: False) -> Path:
    """Write `checkpoint.pth` to a temporary file, sync it and rename it; the one before stays under its step's name.

    given_up: asked at every write to the file, from when on the checkpoint is not wanted any more.

    Raises:
        OSError: the disk is full or read-only, or it was given up; the newest checkpoint is then untouched.
    """
    newest, temporary = folder / NEWEST, folder / TEMPORARY
    try:
        with _Revocable(temporary, given_up) as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if keep > 1 and newest.exists():
            _keep_under_own_name(newest)
        os.replace(temporary, newest)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        if _is_full(error, folder):
            raise OSError(f"cannot write {newest}, the disk of {folder} is full: No space left on device") from error
        raise OSError(f"cannot write {newest}: {error}") from error
    directory = os.open(folder, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    for old in sorted(folder.glob(KEPT))[: -(keep - 1) or None]:
        old.unlink()
    return newest


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's content on the CPU, without running anything in it.

    Raises:
        UserError: it is no checkpoint of this project, or of another format version.
    """
    try:
        state = read_pickle(path)
        version = state["format"]
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:
        raise UserError(f"{path} is no checkpoint of clever_fast: {_reason(error)}") from error
    if version != FORMAT:
        raise UserError(f"{path} has format {version}, this version reads {FORMAT}: use the version that wrote it")
    return state


def _reason(error: Exception) -> str:
    if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"loading it would run {refused[1]}, which no checkpoint of ours does. Nothing of it was run"
    return "it is damaged, or of another program"


def read_pickle(path: Path) -> Any:
    """What torch.save wrote, on the CPU, without running anything in it; mapped into memory where that is possible."""
    name = str(path)
    if zipfile.is_zipfile(path) and name.encode(errors="replace").decode() == name:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    with path.open("rb") as file:  # torch maps no file whose name is not UTF-8, nor those of its old format
        return torch.load(file, map_location="cpu", weights_only=True)


def method_state(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The method's own state dict out of a checkpoint's content."""
    flat = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            flat[name] = value
        elif name not in ("recipe", "data", "optimizer", "scaler") and isinstance(value, dict):
            flat.update({f"{name}.{key}": tensor for key, tensor in value.items()})
    return flat


def load_method(path: Path) -> tuple[Method, Recipe, int]:
    """The method of a checkpoint with all its weights, on the CPU, its recipe, and the step it was saved at.

    Raises:
        UserError: it is no checkpoint, or one that does not fit its own recipe; names the keys.
    """
    state = load(path)
    recipe = Recipe.from_dict(state["recipe"])
    method, saved = recipe.build(), method_state(state)
    expected = method.state_dict()
    odd = sorted(expected.keys() ^ saved.keys()) or [
        name for name, tensor in expected.items() if tensor.shape != saved[name].shape
    ]
    if odd:
        more = f" and {len(odd) - LISTED} more" if len(odd) > LISTED else ""
        raise UserError(
            f"{path} is of another architecture than its recipe's {recipe.backbone.name}: "
            f"missing, unknown or of another shape are {', '.join(odd[:LISTED])}{more}"
        )
    method.load_state_dict(saved)
    return method, recipe, state["step"]


def differences(saved: dict[str, Any], wanted: dict[str, Any], prefix: str) -> list[str]:
    """Dotted keys at which two plain nested values differ, with both values."""
    found = []
    for key in sorted(saved.keys() | wanted.keys()):
        a, b, name = saved.get(key), wanted.get(key), f"{prefix}.{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, name)
        elif a != b:
            found.append(f"{name} (saved {a}, now {b})")
    return found


def refuse_other(path: Path, state: dict[str, Any], recipe: Recipe, data: dict[str, Any]) -> None:
    """Raise UserError if a checkpoint is of another recipe or other data, naming every differing key."""
    saved, wanted = map(with_policy_numbers, (with_former_defaults(state["recipe"]), recipe.as_dict()))
    differing, before = differences(saved, wanted, "recipe"), state["data"]
    if before != data and not differing:
        counts = [f"{found['images']:,} readable images of {found['classes']:,} classes" for found in (before, data)]
        others = ", other ones" if counts[0] == counts[1] else ""
        raise UserError(
            f"{path} was trained on {counts[0]}, now there are {counts[1]}{others}: restore the data as it was, or "
            "give another --run folder"
        )
    differing += differences(before, data, "data")
    if differing:
        raise UserError(
            f"{path} belongs to another run: {', '.join(differing)}. Give the same values, or another --run folder"
        )
    if state["commit"] != commit():
        print(f"note: {path} was written by {state['commit']}, this is {commit()}")


def prepare_folder(folder: Path, size: int, keep: int) -> None:
    """Make the run's folder and see that it takes `keep` checkpoints of `size` bytes and the one being written.

    Raises:
        UserError: the folder cannot be written, or the disk has too little room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"x")
        probe.unlink()
        (folder / TEMPORARY).unlink(missing_ok=True)  # of a run that was killed while it wrote
    except OSError as error:
        raise UserError(f"cannot write to the run folder {folder}: {error.strerror}; give another --run") from None
    present = sum(path.stat().st_size for path in folder.glob("checkpoint*.pth"))
    needed, free = size * (keep + 1) - present, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free / 2**20:,.0f} MiB free and this run needs {needed / 2**20:,.0f} MiB for its "
            "checkpoints: free some, lower --keep, or give another --run"
        )


class _Revocable(io.BufferedWriter):
    """A new file that takes no more once it is given up."""

    def __init__(self, path: Path, given_up: Callable[[], bool]):
        super().__init__(io.FileIO(path, "w"))
        self.given_up = given_up

    def write(self, data) -> int:
        if self.given_up():
            raise InterruptedError("given up for a newer state")
        return super().write(data)


def by_child(flat: dict[str, torch.Tensor]) -> dict[str, Any]:
    """{"student.backbone.x": t, "center": c} -> {"student": {"backbone.x": t}, "center": c}."""
    nested: dict[str, Any] = {}
    for name, tensor in flat.items():
        child, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(child, {})[rest] = tensor
        else:
            nested[name] = tensor
    return nested


def _is_full(error: Exception, folder: Path) -> bool:
    """Whether a write failed for want of room; torch says only that its file is shorter than it should be."""
    causes = (error, error.__cause__, error.__context__)
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        return True
    return isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < 2**20


def _keep_under_own_name(newest: Path) -> None:
    """Under its step's name; a broken one has no step, and is not kept."""
    try:
        kept = newest.with_name(KEPT.replace("*", f"{load(newest)['step']:09d}"))
    except UserError:
        return
    kept.unlink(missing_ok=True)
    try:
        os.link(newest, kept)
    except OSError:  # a file system without hard links
        shutil.copyfile(newest, kept)
