"""Ablations as data: a grid over the fields of a recipe, every point of it an ordinary run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from clever_fast.command_line import as_words, parse_pretrain, read_yaml
from clever_fast.errors import UserError
from clever_fast.options import Recipe, with_former_defaults

SEED = "seed"  # the field that a mean and its spread are taken over
SCORE = "score.json"  # what a finished run of a sweep leaves in its folder


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A grid over the fields of a recipe.

    Args:
        recipe: the name of the recipe, or a YAML file, that every run starts from.
        grid: values of each field, by its name below `--recipe.`; every combination is a run.
        set: fields that have the same value in every run.
    """

    recipe: str
    grid: dict[str, list[Any]]
    set: dict[str, Any]


def _ready(**grid: list[Any]) -> Sweep:
    values = {f"method.{name}": values for name, values in grid.items()}
    return Sweep(recipe="clever_vits16_in100", grid=values | {SEED: [0, 1, 2]}, set={})


SWEEPS = {  # the paper's three; it prints the optima .8, 65,536 and .001, and its grids only as pictures
    "separation_ratio": _ready(separation_ratio=[0.5, 0.6, 0.7, 0.8, 0.9, 0.95]),
    "ef_prototypes": _ready(ef_prototypes=[1024, 4096, 16_384, 65_536, 131_072]),
    "preg_weight": _ready(preg_weight=[0.0, 0.0001, 0.001, 0.01, 0.1]),
}


class Trial(NamedTuple):
    """One point of the grid."""

    name: str  # of its folder
    point: dict[str, Any]  # the value of each field of the grid, as the recipe holds it
    recipe: Recipe
    words: list[str]  # of `pretrain`
    folder: Path
    labels: int | None  # labelled images of each class that vote; None: all


def read(name: str) -> Sweep:
    """A ready sweep by name, or one out of a YAML file with `recipe`, `grid` and, if wanted, `set`.

    Raises:
        UserError: no such sweep or file, an unknown key, no grid, or a field without values.
    """
    if name in SWEEPS:
        return SWEEPS[name]
    if Path(name).suffix not in (".yaml", ".yml", ".json"):
        raise UserError(f"no sweep is called {name!r}; the ready ones are {', '.join(SWEEPS)}, or give a YAML file")
    content = read_yaml(name)
    known = [field.name for field in fields(Sweep)]
    if unknown := [key for key in content if key not in known]:
        raise UserError(f"{name} has the key {unknown[0]!r}; a sweep has {', '.join(known)}")
    sweep = {"recipe": "clever_vits16_in100", "grid": None, "set": None} | content
    if not isinstance(sweep["grid"], dict) or not sweep["grid"]:
        raise UserError(f"{name} has no grid; write `grid: {{method.separation_ratio: [0.5, 0.8], seed: [0, 1, 2]}}`")
    if not isinstance(sweep["set"] or {}, dict):
        raise UserError(f"{name}: set is {sweep['set']!r}; write fields and values, such as `set: {{epochs: 20}}`")
    for field, values in sweep["grid"].items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{name}: {field} has {values!r} for its values; write a list such as [0.5, 0.8]")
        if field in (sweep["set"] or {}):
            raise UserError(f"{name}: {field} stands in both grid and set; leave it in one")
    return Sweep(recipe=str(sweep["recipe"]), grid=sweep["grid"], set=sweep["set"] or {})


def trials(
    sweep: Sweep, data: Path, out: Path, overrides: Iterable[str] = (), labels: int | None = None
) -> list[Trial]:
    """Every run of a sweep, checked as far as can be without data; seed by seed, so that what is left off is a seed.

    Args:
        overrides: options of `pretrain`, over what the sweep sets but under its grid.
        labels: images of each class that vote; all by default.

    Raises:
        UserError: an unknown field, a value of a wrong type or out of range, two equal points, a run of another recipe.
    """
    seeds = sweep.grid.get(SEED, [None])
    others = [field for field in sweep.grid if field != SEED]
    found: dict[str, Trial] = {}
    for seed, *values in product(seeds, *(sweep.grid[field] for field in others)):
        point = dict(zip(others, values, strict=True)) | ({} if seed is None else {SEED: seed})
        trial = _trial(sweep, point, data, out, list(overrides), labels)
        if trial.name in found:
            raise UserError(f"the grid holds {trial.name} twice; leave one of the two equal values out")
        found[trial.name] = trial
    return list(found.values())


def _trial(
    sweep: Sweep, point: dict[str, Any], data: Path, out: Path, overrides: list[str], labels: int | None
) -> Trial:
    words = [f"--recipe={sweep.recipe}", *as_words({"recipe": sweep.set}), *overrides, *as_words({"recipe": point})]
    recipe, _, _ = parse_pretrain([*words, f"--data={data}", f"--run={out}"])
    if "base" in point or "base" in sweep.set:
        raise UserError("a sweep takes fields of one recipe, not base; name the recipe as `recipe: NAME`")
    with torch.device("meta"):  # finds what only the networks can refuse, and costs no memory
        recipe.build()
    point = {field: _value(recipe.as_dict(), field) for field in point}
    name = ",".join(f"{field.removeprefix('method.')}={value}" for field, value in point.items())
    folder = out / "runs" / name
    trial = Trial(name, point, recipe, [*words, f"--data={data}", f"--run={folder}"], folder, labels)
    if result := score(trial):
        wanted = _plain(recipe) | {"labels": labels}
        found = with_former_defaults(result["recipe"]) | {"labels": result.get("labels")}
        if differing := [key for key, value in wanted.items() if found.get(key) != value]:
            raise UserError(f"{folder} holds a run of another {' and '.join(differing)}; take another --out")
    return trial


def score(trial: Trial) -> dict[str, Any] | None:
    """What a finished run has scored; None of one that is not finished."""
    path = trial.folder / SCORE
    return json.loads(path.read_text()) if path.exists() else None


def record(trial: Trial) -> dict[str, Any]:
    """The point and the score of a finished run as one plain value."""
    return {"point": trial.point, **score(trial)}


def _value(plain: dict[str, Any], field: str) -> Any:
    for key in field.split("."):
        plain = plain[key]
    return plain


def _plain(recipe: Recipe) -> dict[str, Any]:
    return json.loads(json.dumps(recipe.as_dict()))  # as JSON gives it back
