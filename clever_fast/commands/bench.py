"""`clever-fast bench`: how fast this machine is, and what limits it."""

from pathlib import Path

import torch
from rich.table import Table

from clever_fast.benchmarks import clocks, session
from clever_fast.benchmarks.measure import append
from clever_fast.benchmarks.records import number
from clever_fast.errors import UserError
from clever_fast.performance.flops import IMAGES
from clever_fast.recipes import NETWORKS, RECIPES
from clever_fast.terminal import show

RECORDS = Path("bench")
EVERY = tuple(name.replace("clever", method) for name in NETWORKS for method in ("clever", "dino"))
USUAL = "clever_vits16_in100"


def loader(
    *,
    data: Path | None = None,
    recipe: str = USUAL,
    batch: int | None = None,
    rounds: int | None = None,
    seconds: float | None = None,
    records: Path = RECORDS,
) -> None:
    """Time the loader alone: read, decode, crop, augment and hand over, with nobody computing.

    Args:
        data: folder of class folders; JPEGs of 500 x 375 px are generated where none is given.
        recipe: whose crops and policy are made.
        batch: images of a batch; 128 on a GPU, 16 on a CPU.
        rounds: repetitions; 5 on a GPU, 3 on a CPU.
        seconds: about the length of a repetition; 4 on a GPU, 0.5 on a CPU.
        records: folder that the records are added to.
    """
    session.time_recipes(
        [recipe], ["fast"], ("loader",), records, data=data, batch=batch, rounds=rounds, seconds=seconds
    )


def step(
    *,
    recipes: tuple[str, ...] = EVERY,
    executions: tuple[str, ...] = ("fast", "plain"),
    batch: int | None = None,
    rounds: int | None = None,
    seconds: float | None = None,
    records: Path = RECORDS,
) -> None:
    """Time a training step on a fixed batch of noise, so without a loader; rounds of the executions alternate.

    Args:
        recipes: names, with commas between them.
        executions: names, with commas between them; the ratio is that of the first to each other.
        batch: images of a batch; 128 on a GPU, 2 on a CPU.
        rounds: repetitions; 5 on a GPU, 3 on a CPU.
        seconds: about the length of a repetition; 4 on a GPU, 0.5 on a CPU.
        records: folder that the records are added to.
    """
    session.time_recipes(
        list(recipes), list(executions), ("step",), records, batch=batch, rounds=rounds, seconds=seconds
    )


def epoch(
    *,
    data: Path | None = None,
    recipe: str = USUAL,
    execution: str = "fast",
    batch: int | None = None,
    max_steps: int | None = None,
    rounds: int = 10,
    seconds: float | None = None,
    records: Path = RECORDS,
) -> None:
    """Time an epoch of a folder, cut into rounds; between them the loader alone and the step alone are timed.

    Args:
        data: folder of class folders; JPEGs of 500 x 375 px are generated where none is given.
        recipe: what is trained.
        execution: how.
        batch: images of a batch; 128 on a GPU, 2 on a CPU.
        max_steps: stop the epoch after so many steps.
        rounds: parts of the epoch, whose rates give the spread.
        seconds: about the length of each round of the loader alone and of the step alone.
        records: folder that the record is added to.
    """
    if max_steps is not None and max_steps < 1:
        raise UserError(f"--max_steps {max_steps} is too small: give at least 1")
    timing = {"batch": batch, "rounds": rounds, "seconds": seconds}
    rows = session.time_recipes(
        [recipe],
        [execution],
        clocks.CLOCKS,
        records,
        data=data,
        epoch_steps=lambda whole: min(whole, max_steps or whole),
        **timing,
    )
    _estimate(rows[-1])


def ops(
    *, rounds: int = 5, images: int | None = None, loops: bool = False, predict: bool = False, records: Path = RECORDS
) -> None:
    """Time the fused kernels against other ways to compute the same, and against the bandwidth of a copy.

    On a GPU the losses and the selective scan, after the losses' tests; on a CPU the selective scan.

    Args:
        rounds: repetitions.
        images: of the scan's batch at 224 px; 128 on a GPU, 2 on a CPU.
        loops: time the scan's recurrence in a Python loop too; some minutes.
        predict: count the losses' bytes and instructions and predict their times on an A100 and an H200; half a minute.
        records: folder that the records are added to.
    """
    from clever_fast.benchmarks import ops, scan

    if torch.cuda.is_available() or predict:
        for record in ops.run(predict=predict):
            append(records / "ops.jsonl", record)
    for record in scan.run(images=images, rounds=rounds, loops=loops):
        append(records / "scan.jsonl", record)
        print(scan.line(record), flush=True)
    print(f"records: {records / 'scan.jsonl'}")


def all(*, data: Path | None = None, batch: int | None = None, records: Path = RECORDS) -> None:
    """Time everything: the loader, the step and both together for every backbone with DINO and CLeVER, and the kernels.

    On two CPU cores it takes about four minutes, at a few small crops.

    Args:
        data: folder of class folders; JPEGs of 500 x 375 px are generated where none is given.
        batch: images of a batch; 128 on a GPU, 2 on a CPU.
        records: folder that the records are added to.
    """
    executions = ["fast", "plain"] if torch.cuda.is_available() else ["fast"]
    session.time_recipes([USUAL], ["fast"], ("loader",), records, data=data, batch=batch)
    session.time_recipes(list(EVERY), executions, clocks.CLOCKS, records, data=data, batch=batch)
    ops(rounds=3, records=records)


def compare(a: str, b: str, *, records: Path = RECORDS, anyway: bool = False) -> None:
    """How many times as fast b is as a, for every recipe that both have; refused where the conditions differ.

    Args:
        a: a file or folder of records, or the name of an execution in the folder `records`.
        b: the same.
        records: where executions are looked up.
        anyway: compare what was measured under different conditions, and name the differences.
    """
    from clever_fast.benchmarks import compare

    pairs = compare.compare(a, b, records, anyway=anyway)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("recipe", "clock", "images/s, a", "images/s, b", "b / a", ""):
        table.add_column(column)
    for pair in pairs:
        rates = [session.spread(row["images_per_second"]) for row in (pair.a, pair.b)]
        note = "" if pair.told_apart else "rounds overlap"
        table.add_row(pair.recipe, pair.benchmark, *rates, f"{pair.ratio:.2f}", note)
    show(table)
    for text in sorted({text for pair in pairs for text in pair.unequal}):
        print(f"not equal: {text}")


def report(*, records: Path = RECORDS, out: Path | None = None, pages: Path | None = None) -> None:
    """Draw the records: one HTML page that needs nothing else.

    Args:
        records: folder or file of records.
        out: the page; report.html in the folder of the records where none is given.
        pages: a checkout of this project, the tables in whose README.md and docs/ are made again from the records.
    """
    from clever_fast.benchmarks import markdown, report
    from clever_fast.benchmarks.records import read

    found = read(records)
    path = out or (records if records.is_dir() else records.parent) / "report.html"
    try:
        path.write_text(report.html_page(found), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    print(f"{path}: open it in a browser")
    if pages:
        for page in markdown.write(found, pages):
            print(f"{page}: its tables are new")


def _estimate(record: dict) -> None:
    """What the measured rate would make of ImageNet."""
    rate = record["images_per_second"]["median"]
    print(f"Estimates from {number(rate)} images/s at {record['crops']}, not measurements:")
    for data, epochs in ((data, RECIPES[f"clever_vits16_{data}"].epochs) for data in ("in100", "in1k")):
        hours = IMAGES[data] / rate / 3600
        print(f"  {data}: {hours:,.2f} h an epoch, {epochs * hours:,.1f} h for the published {epochs} epochs")
