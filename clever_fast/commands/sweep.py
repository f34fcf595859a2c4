"""`clever-fast sweep`: pretrain and evaluate every point of a grid over a recipe's fields."""

from pathlib import Path

from clever_fast.command_line import Parser
from clever_fast.errors import UserError
from clever_fast.evaluate import knn, labelled
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.progress import rounds_bar
from clever_fast.sweeps import grid, table
from clever_fast.sweeps.trial import K
from clever_fast.sweeps.workers import Outcome, work


def sweep(words: list[str]) -> int:
    """Returns the exit code: 0 also for a sweep that was told to stop, 1 if a run failed."""
    own, overrides = _split(words)
    parser = Parser(
        prog="clever-fast sweep",
        description="Pretrain and evaluate every point of a grid over a recipe's fields, then draw one table and one "
        "plot. Options that begin with --recipe or --execution are those of pretrain, for every run. The same command "
        "goes on where it was stopped.",
    )
    parser.add_function_arguments(_sweep, as_positional=True, skip={"overrides"})
    return _sweep(**parser.parse_args(own).as_dict(), overrides=overrides)


def _sweep(
    name: str,
    *,
    data: Path,
    out: Path,
    classes: Path | None = None,
    labels: int | None = None,
    devices: str | None = None,
    overrides: list[str],
) -> int:
    """Run a sweep.

    Args:
        name: a ready sweep (separation_ratio, ef_prototypes, preg_weight) or a YAML file with recipe, set and grid.
        data: folder with train/ and val/ or test/, each of class folders.
        out: folder of the runs, the table and the plot.
        classes: file with one class folder a line, for a subset.
        labels: training images of each class that vote when a run is scored, the first ones; all by default.
        devices: GPUs by number, such as 0,1: one run at a time on each; without it, one run at a time.
    """
    plan = grid.read(name)
    if classes is not None:
        overrides = [*overrides, f"--classes={classes}"]
    trials, places = grid.trials(plan, data, out, overrides, labels), _devices(devices)
    bank, query = (open_manifest(data, split=split, classes=classes, progress=True) for split in ("train", "val"))
    knn.check(bank if labels is None else labelled.few_of_each_class(bank, labels), query, (K,))
    left = [trial for trial in trials if not grid.score(trial)]
    out.mkdir(parents=True, exist_ok=True)
    print(f"{len(trials)} runs of {trials[0].recipe.method.name}, {len(trials) - len(left)} of them done", flush=True)
    ended: list[Outcome] = []
    with rounds_bar(len(left)) as (advance, say):
        for outcome in work(left, places):
            ended.append(outcome)
            advance(outcome.trial.name)
            say(outcome.line)
    records = [grid.record(trial) for trial in trials if grid.score(trial)]
    if records:
        print("\n" + table.write(records, out))
    failed = [outcome.trial.name for outcome in ended if outcome.failed]
    if failed:
        print(f"{len(failed)} of {len(trials)} runs failed: {' and '.join(failed)}; the same command tries them again")
    elif len(records) < len(trials):
        print(f"{len(trials) - len(records)} of {len(trials)} runs are left; the same command goes on")
    return int(bool(failed))


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of `sweep` and those that go to every `pretrain`."""
    own, overrides, rest = [], [], iter(words)
    for word in rest:
        if word.split("=")[0].split(".")[0] in ("--recipe", "--execution"):
            overrides += [word] if "=" in word else [word, next(rest, "")]
        else:
            own.append(word)
    return own, overrides


def _devices(text: str | None) -> list[str | None]:
    devices = text.split(",") if text is not None else [None]
    wrong = [device for device in devices if device is not None and not device.isdecimal()]
    if wrong or len(set(devices)) < len(devices):
        raise UserError(f"--devices {text} is not a list of different GPUs; write numbers such as 0,1")
    return devices
