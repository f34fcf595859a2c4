"""The records of measurements: JSON lines that say what was timed, under which conditions, and how fast it was."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from clever_fast.errors import UserError
from clever_fast.models import BACKBONES, FORMER_NAMES

TRAINING = ("loader", "step", "epoch")  # the benchmarks of clever_fast.benchmarks.clocks
KERNELS = ("ops", "scan")  # those of `bench ops`
NEEDED = ("date", "commit", "cpu", "cores", "versions")  # of every record
NEEDED_OF_TRAINING = ("recipe", "method", "backbone", "execution", "device", "precision", "crops", "batch")
# what has to be equal for two speeds to be comparable: everything that is not the code
CONDITIONS = ("device", "cpu", "cores", "driver", "cuda", "python", "versions", "precision", "threads", "settings")
WORK = ("changes", "policy", "crops", "batch", "data")


def read(place: Path) -> list[dict]:
    """All records of a file, or of a folder's files of `clever-fast bench`, in the order of their writing.

    Raises:
        UserError: nothing is there, or a line is no record.
    """
    if not place.exists():
        raise UserError(f"no records at {place}: `clever-fast bench all --records {place}` writes some")
    files = [place / f"{name}.jsonl" for name in (*TRAINING, *KERNELS)] if place.is_dir() else [place]
    files = [path for path in files if path.exists()]
    records = [_parse(path, number, line) for path in files for number, line in enumerate(_lines(path), 1) if line]
    if not records:
        raise UserError(f"{place} holds no records: `clever-fast bench all --records FOLDER` writes some")
    return records


def training(records: Iterable[dict]) -> list[dict]:
    """Those of the three clocks, the newest for each way of running each recipe."""
    return list({_key(r): r for r in records if r["benchmark"] in TRAINING}.values())


def title(record: dict) -> str:
    """The method and the backbone as papers write them."""
    method = {"clever": "CLeVER", "dino": "DINO"}.get(record["method"], record["method"])
    known = BACKBONES.get(record["backbone"])
    return f"{method} {known.label if known else record['backbone']}"


def number(value: float) -> str:
    """Three digits that count, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def differences(a: dict, b: dict, names: Iterable[str]) -> list[str]:
    """What is not equal in two records, in words."""
    found = []
    for name in names:
        one, other = a.get(name), b.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += [f"{name}.{text}" for text in differences(one, other, sorted({*one, *other}))]
        elif one != other:
            found.append(f"{name} ({_say(one)}, {_say(other)})")
    return found


def _say(value: object) -> str:
    return "not recorded" if value is None else str(value)


def _key(record: dict) -> tuple:
    names = ("benchmark", "recipe", "execution", "device", "cores", "precision", "crops", "batch")
    return tuple(record.get(name) for name in names)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _parse(path: Path, number: int, line: str) -> dict:
    try:
        record = json.loads(line)
        timed = record["benchmark"] in TRAINING
        missing = [name for name in (*NEEDED, *(NEEDED_OF_TRAINING if timed else ())) if name not in record]
        if timed and not {"median", "low", "high"} <= record.get("images_per_second", {}).keys():
            missing.append("images_per_second with median, low and high")
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UserError(f"line {number} of {path} is no record of `clever-fast bench`") from None
    if missing:
        raise UserError(f"line {number} of {path} is a record of another format: it lacks {', '.join(missing)}")
    if "backbone" in record:  # older records have former names
        record["backbone"] = FORMER_NAMES.get(record["backbone"], record["backbone"])
    return record
