"""`clever-fast bench`: how fast this machine is, and what limits it."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from clever_fast.bar import rounds_bar
from clever_fast.benchmarks import clocks
from clever_fast.benchmarks.measure import append
from clever_fast.configuration import find_execution, find_recipe
from clever_fast.cost import IMAGES
from clever_fast.errors import UserError
from clever_fast.pipelines.reading import Manifest, open_manifest
from clever_fast.recipes import EPOCHS, METHODS, NETWORKS

RECORDS = Path("bench")
EVERY = ",".join(f"{method}_{network}_in100" for network in NETWORKS for method in reversed(METHODS))
USUAL = "clever_vits16_in100"
SIZE = (500, 375)  # of the generated photographs: ImageNet's most frequent


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
        seconds: about the length of a repetition; 4 on a GPU, 0.6 on a CPU.
        records: folder that the records are added to.
    """
    _time([recipe], ["fast"], ("loader",), records, data=data, batch=batch, rounds=rounds, seconds=seconds)


def step(
    *,
    recipes: str = EVERY,
    executions: str = "fast,plain",
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
        seconds: about the length of a repetition; 4 on a GPU, 0.6 on a CPU.
        records: folder that the records are added to.
    """
    names = _words(recipes), _words(executions)
    _time(*names, ("step",), records, batch=batch, rounds=rounds, seconds=seconds)


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
    rows = _time(
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
    _time([USUAL], ["fast"], ("loader",), records, data=data, batch=batch)
    _time(_words(EVERY), executions, ("step", "epoch"), records, data=data, batch=batch)
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
        rates = [_spread(row["images_per_second"]) for row in (pair.a, pair.b)]
        note = "" if pair.told_apart else "rounds overlap"
        table.add_row(pair.recipe, pair.benchmark, *rates, f"{pair.ratio:.2f}", note)
    Console().print(table)
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
        path.write_text(report.html_page(found))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    print(f"{path}: open it in a browser")
    if pages:
        for page in markdown.write(found, pages):
            print(f"{page}: its tables are new")


def _time(
    recipes: list[str],
    executions: list[str],
    which: tuple[str, ...],
    records: Path,
    *,
    data: Path | None = None,
    batch: int | None = None,
    rounds: int | None = None,
    seconds: float | None = None,
    epoch_steps: Callable[[int], int] | None = None,
) -> list[dict]:
    """Records of the clocks `which`, shown and written as they come. epoch_steps: of the steps that are an epoch."""
    for name, value in (("batch", batch), ("rounds", rounds), ("seconds", seconds)):
        if value is not None and value <= 0:
            raise UserError(f"--{name} {value} is too small: give more than 0")
    found = {name: find_execution(name) for name in executions}
    names, rows = [find_recipe(name) for name in recipes], []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = clocks.USUAL[device]
    alone = which == ("loader",)  # which a CPU bears as published
    batch = batch or size["loader_batch" if alone else "batch"]
    rounds, seconds = rounds or size["rounds"], seconds or size["seconds"]
    if device == "cpu" and not alone:
        print("No GPU: timed on the CPU, at small sizes. What is fast here need not be fast on a GPU.", flush=True)
    laps = rounds * len(names) * sum(len(found) if clock == "step" else 1 for clock in which)
    needs_images = set(which) != {"step"}
    with _images(data, batch) if needs_images else nullcontext() as manifest, rounds_bar(laps) as (advance, say):
        steps = epoch_steps(len(manifest) // batch) if epoch_steps else None
        for name in names:
            recipe, origin = (
                clocks.sized(name, device, batch, whole=alone),
                "a folder" if data else "generated photographs",
            )
            timing = {"rounds": min(rounds, steps or rounds), "seconds": seconds, "steps": steps, "advance": advance}
            try:
                for record in clocks.measure(name, recipe, found, which, manifest, origin, **timing):
                    append(records / f"{record['benchmark']}.jsonl", record)
                    rows.append(record)
                    say(_line(record))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                say(f"{name}: no record, {batch} images do not fit into memory; give a smaller --batch")
    if not rows:
        raise UserError(f"nothing was measured: --batch {batch} does not fit into memory")
    print(f"records: {records}; `clever-fast bench report --records {records}` draws them")
    return rows


@contextmanager
def _images(data: Path | None, batch: int) -> Iterator[Manifest]:
    """Those of a folder, or photographs that are drawn for the time being."""
    if data:
        yield open_manifest(data, progress=True)
        return
    from clever_fast.benchmarks.photographs import write_jpegs

    with tempfile.TemporaryDirectory() as folder:
        count = max(32, 2 * batch)
        print(f"drawing {count} photographs of {SIZE[0]} x {SIZE[1]} px", flush=True)
        write_jpegs(Path(folder) / "photographs", count, SIZE)
        yield open_manifest(Path(folder))


def _words(text: str) -> list[str]:
    return [word for word in text.replace(" ", "").split(",") if word]


def _line(r: dict) -> str:
    """What a record found, on one line."""
    parts = [f"{_spread(r['images_per_second'])} images/s"]
    if "tflops" in r:
        parts.append(f"{r['tflops']:.3g} TFLOP/s, {r['share_of_peak']:.1%} of a large product")
    if r["benchmark"] == "epoch":
        parts.append(f"waiting for data {r['data_wait']:.0%}")
    if r["benchmark"] == "loader":
        parts.append(f"{r['cpu_ms_per_image']:.1f} ms of CPU time an image")
    if "peak_mib" in r:
        parts.append(f"{r['peak_mib']:,.0f} MiB")
    if "joules_per_image" in r:
        parts.append(f"{r['joules_per_image']['median']:.2f} J an image")
    what = r["policy"] if r["benchmark"] == "loader" else f"{r['recipe']}, {r['execution']}"
    return f"{r['benchmark']:6}  {what}, {r['batch']} x ({r['crops']}): {', '.join(parts)}"


def _spread(rate: dict[str, float]) -> str:
    return f"{rate['median']:.4g} ({rate['low']:.4g} to {rate['high']:.4g})"


def _estimate(record: dict) -> None:
    """What the measured rate would make of ImageNet."""
    rate = record["images_per_second"]["median"]
    print(f"Estimates from {rate:.4g} images/s at {record['crops']}, not measurements:")
    for data, epochs in EPOCHS.items():
        hours = IMAGES[data] / rate / 3600
        print(f"  {data}: {hours:,.2f} h an epoch, {epochs * hours:,.1f} h for the published {epochs} epochs")
