"""What it costs where the images lie: the loader's speed from a folder and from shards, and indexing many files.

    python -m clever_fast.benchmarks.checks.storage

Rounds of folder and shards alternate. All files are in the page cache, so this is the programs' share of the cost; a
disk or a network adds its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from clever_fast.benchmarks.checks.against_pil import rate, settle
from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.benchmarks.photographs import write_jpegs
from clever_fast.environment import conditions
from clever_fast.performance.timing import summary
from clever_fast.pipelines.evaluation import EvaluationLoader
from clever_fast.pipelines.loader_options import LoaderOptions
from clever_fast.pipelines.manifest import Manifest, open_manifest
from clever_fast.pipelines.policies import BAUG
from clever_fast.pipelines.pretraining import PretrainingLoader
from clever_fast.pipelines.shards.building import build_shards

RESULTS = Path(__file__).resolve().parents[1] / "results" / "storage.jsonl"
SIZE, BATCH, CLASSES = (500, 375), 16, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="timed images of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=100_000, help="files that are indexed")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_jpegs(folder / "photographs" / "class", 64, SIZE)
        manifests = {"folder": open_manifest(folder / "photographs")}
        build_shards(manifests["folder"], folder / "shards", name="s", bytes_per_shard=10**8, seed=0)
        manifests["shards"] = open_manifest(folder / "shards")
        loaders = {"10 crops, baug": crops, "1 crop of 224, k-NN": centres}
        record = {name: compare(manifests, loader, options) for name, loader in loaders.items()}
        record |= {"index_seconds": index(folder / "many", options.files), "files": options.files} | conditions()
    append(options.results, {"benchmark": "storage", **record})
    if options.results == RESULTS:
        write_section(DOCS / "data.md", "storage", table(record, list(loaders)))


def compare(manifests: dict[str, Manifest], loader: Callable, options: argparse.Namespace) -> dict[str, dict]:
    """Images per second of each place, in alternating rounds, and their ratio."""
    batches = {name: loader(manifest) for name, manifest in manifests.items()}
    speeds: dict[str, list[float]] = {name: [] for name in manifests}
    for _ in range(options.rounds):
        for name, stream in batches.items():
            settle()
            speeds[name].append(rate(stream, 4, options.images // BATCH, BATCH)[0])
    ratios = [shards / files for files, shards in zip(speeds["folder"], speeds["shards"])]
    result = {name: summary(values) for name, values in speeds.items()} | {"ratio": summary(ratios)}
    print({name: round(values["median"], 2) for name, values in result.items()}, flush=True)
    return result


def crops(manifest: Manifest) -> Iterator:
    cores = len(os.sched_getaffinity(0))
    return iter(
        PretrainingLoader(
            manifest, BAUG, seed=0, batch_size=BATCH, options=LoaderOptions(threads=cores), dtype="float32"
        )
    )


def centres(manifest: Manifest) -> Iterator:
    many = manifest.take(list(range(len(manifest))) * 100, "")  # without an end
    return iter(
        EvaluationLoader(many, size=224, batch_size=BATCH, options=LoaderOptions(threads=len(os.sched_getaffinity(0))))
    )


def index(folder: Path, files: int) -> dict[str, float]:
    """Seconds to index links to small JPEGs, in `CLASSES` folders: at first, with nothing decoded, and again."""
    images = write_jpegs(folder.with_name("small"), CLASSES, (32, 32))
    for number, image in enumerate(images):
        (folder / f"c{number:03d}").mkdir(parents=True)
        for i in range(files // CLASSES):
            os.link(image, folder / f"c{number:03d}" / f"{i:05d}.jpg")
    seconds = {"first": clock(folder)}
    with mock.patch("clever_fast.pipelines.indexing.decoder", return_value=lambda data: (32, 32, "")):
        seconds["without_decoding"] = clock(folder, force=True)
    seconds["again"] = statistics.median(clock(folder) for _ in range(3))
    os.link(images[0], folder / "c000" / "new.jpg")
    seconds["one_more_file"] = clock(folder)
    print({name: round(value, 2) for name, value in seconds.items()})
    return seconds


def clock(folder: Path, **options) -> float:
    started = time.perf_counter()
    open_manifest(folder, **options)
    return time.perf_counter() - started


def table(record: dict, rows: list[str]) -> str:
    lines = ["| loader | folder, images/s | shards, images/s | shards to folder, lowest to highest of the rounds |"]
    lines += ["|---|---|---|---|"]
    for name in rows:
        row = record[name]
        ratio = f"**{row['ratio']['median']:.2f}** ({row['ratio']['low']:.2f} to {row['ratio']['high']:.2f})"
        lines.append(f"| {name} | {row['folder']['median']:.0f} | {row['shards']['median']:.0f} | {ratio} |")
    seconds = record["index_seconds"]
    lines += ["", f"| {record['files']:,} files of 32x32 px in {CLASSES} folders | seconds |", "|---|---|"]
    lines += [f"| indexed for the first time | {seconds['first']:.1f} |"]
    lines += [f"| the same with nothing decoded | {seconds['without_decoding']:.1f} |"]
    lines += [f"| opened again | {seconds['again']:.2f} |", f"| one file more | {seconds['one_more_file']:.1f} |"]
    return "\n".join(lines) + (
        f"\n\nMedians of {record[rows[0]]['ratio']['rounds']} alternating rounds, batches of {BATCH}, JPEGs of "
        f"{SIZE[0]}x{SIZE[1]} px in the page cache; {record['cores']} cores of an {record['cpu']}, {record['date']}, "
        f"commit {record['commit']}. The small files are hard links. Not measured on a GPU.\n"
    )


if __name__ == "__main__":
    main()
