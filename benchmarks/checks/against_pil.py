"""Images per second of the pipelines against DataLoaders that make the same crops with PIL and with albumentations.

    python -m clever_fast.benchmarks.checks.against_pil

Rounds alternate, so that a slow minute of the machine meets all; each loader keeps every core busy. All deliver float32
tensors of every crop. What a loader prepared before its round began does not count. albumentations is compared where it
is installed, without elastic deformation; PIL and albumentations draw the order of the jitter's steps, the pipelines
have one order.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from clever_fast.benchmarks.checks.torchvision_views import Crops, one_thread, torchvision_views
from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.benchmarks.photographs import write_jpegs
from clever_fast.environment import conditions
from clever_fast.performance.timing import summary
from clever_fast.pipelines.loader_options import LoaderOptions
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.policies import POLICIES, Policy
from clever_fast.pipelines.pretraining import PretrainingLoader
from clever_fast.pipelines.view_batches import elastic_field

RESULTS = Path(__file__).resolve().parents[1] / "results" / "against_pil.jsonl"
# (name, policy, whether the PIL side cuts its elastic fields out of one as we do, share of the images)
ROWS = (
    ("baug", "baug", True, 1.0),
    ("caug", "caug", True, 1.0),
    ("caug_plus, fast elastic on both sides", "caug_plus", True, 1.0),
    ("caug_plus, torchvision's own elastic", "caug_plus", False, 0.5),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="timed images of a round")
    parser.add_argument("--size", default="500x375", help="width x height of the JPEGs")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(Path(folder), 64, (width, height))
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        print(f"{cores} cores, {len(paths)} JPEGs of {width}x{height}, {kilobytes:.0f} kB on average")
        records: list[dict] = []
        for name, policy, fast_elastic, share in ROWS:
            if policy not in options.policies:
                continue
            timed = max(2, round(options.images * share / options.batch))
            speeds = compare(POLICIES[policy], paths, (width, height), fast_elastic, cores, options, timed)
            ratios = [dali[0] / pil[0] for dali, pil in zip(speeds["dali"], speeds["pil"])]
            row = {side: summary([speed for speed, _ in values]) for side, values in speeds.items()}
            row["ratio"] = summary(ratios)
            cpu = {side: statistics.median(cost for _, cost in values) for side, values in speeds.items()}
            for other in speeds.keys() - {"dali", "pil"}:
                pairs = zip(speeds["dali"], speeds[other])
                row[f"{other}_ratio"] = summary([ours[0] / theirs[0] for ours, theirs in pairs])
            rates = ", ".join(f"{key} {text(values, 2)}" for key, values in row.items())
            work = ", ".join(f"{side} {cost:.1f}" for side, cost in cpu.items())
            print(f"{name}\n  images/s: {rates}\n  CPU milliseconds per image: {work}", flush=True)
            flags = {"images": timed * options.batch, "batch": options.batch, "size": options.size, "kB": kilobytes}
            records.append(
                {"benchmark": "against_pil", "row": name, **row, "cpu_ms": cpu, "flags": flags, **conditions()}
            )
            append(options.results, records[-1])
    if len(records) == len(ROWS) and options.results == RESULTS:
        write_section(DOCS / "augmentations.md", "loader", table(records))


def table(records: list[dict]) -> str:
    """The rows of one run in Markdown; both CAUG_PLUS rows stand together."""
    last = records[-1]
    lines = [
        "| policy | ours, images/s | against PIL workers | against albumentations workers "
        "| CPU ms an image: ours, PIL, albumentations |",
        "|---|---|---|---|---|",
    ]
    for r in records:
        ratios = [f"**{text(r[key], 2)}**" if key in r else "" for key in ("ratio", "albumentations_ratio")]
        cpu = ", ".join(f"{cost:.1f}" for cost in r["cpu_ms"].values())
        lines.append(f"| {r['row']} | {r['dali']['median']:.0f} | {' | '.join(ratios)} | {cpu} |")
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    return "\n".join(lines) + (
        f"\n\nMedians (lowest to highest) of {last['ratio']['rounds']} alternating rounds, other programs running too, "
        f"on {last['cores']} cores of an {last['cpu']}, "
        f"{last['date']}, commit {last['commit']}; JPEGs of {last['flags']['size']} px, {last['flags']['kB']:.0f} kB; "
        f"{versions}.\nNot measured on a GPU.\n"
    )


def compare(
    policy: Policy,
    paths: list[Path],
    size: tuple[int, int],
    fast_elastic: bool,
    cores: int,
    options: argparse.Namespace,
    timed: int,
) -> dict[str, list[tuple[float, float]]]:
    """Images per second and CPU milliseconds per image of each round, for both loaders in turn."""
    manifest = Manifest(
        paths[0].parent,
        [path.name for path in paths],
        np.tile(np.array(size, np.int32), (len(paths), 1)),
        np.zeros(len(paths), np.int64),
        ["photograph"],
        {},
        "benchmark",
    )
    # the workers are started before DALI's threads, which a fork would not survive
    length = (4 * cores + timed) * options.batch
    others = {
        "pil": workers(Crops(paths, length, torchvision_views(policy, fast_elastic=fast_elastic)), cores, options)
    }
    if importlib.util.find_spec("albumentations") and elastic_field(policy.views, 0) is None:
        from clever_fast.benchmarks.checks.albumentations_views import AlbumentationsCrops

        others["albumentations"] = workers(AlbumentationsCrops(paths, length, policy), cores, options)
    settle()
    dali = PretrainingLoader(
        manifest,
        policy,
        seed=0,
        batch_size=options.batch,
        options=LoaderOptions(threads=cores),
        device_id=None,
        dtype="float32",
    )
    crops = dali_batches(dali)
    speeds: dict[str, list[tuple[float, float]]] = {side: [] for side in ("dali", *others)}
    for done in range(options.rounds):
        speeds["dali"].append(rate(crops, 4, timed, options.batch))
        for side, other in others.items():
            settle()
            epoch = iter(other)
            speeds[side].append(rate(epoch, 2 * cores, timed, options.batch))
            deque(epoch, maxlen=0)  # else the workers would go on during another's round
        progress = ", ".join(f"{side} {values[-1][0]:.1f}" for side, values in speeds.items())
        print(f"  round {done + 1} of {options.rounds}: {progress} images/s", flush=True)
    dali.close()
    return speeds


def workers(crops: Dataset, cores: int, options: argparse.Namespace) -> DataLoader:
    """A loader with a worker on each core, which have begun to work."""
    made = DataLoader(
        crops,
        batch_size=options.batch,
        num_workers=cores,
        persistent_workers=True,
        multiprocessing_context="spawn",
        worker_init_fn=one_thread,
    )
    next(iter(made))
    return made


def dali_batches(loader: PretrainingLoader) -> Iterator[list[torch.Tensor]]:
    for _, views in loader:
        yield [torch.from_numpy(view) for view in views]


def rate(batches: Iterator, warm_up: int, timed: int, batch_size: int) -> tuple[float, float]:
    """Images per second and CPU milliseconds per image of `timed` batches; `warm_up` others empty the queue before."""
    for _ in range(warm_up):
        next(batches)
    start, used = time.perf_counter(), cpu_seconds()
    for _ in range(timed):
        next(batches)
    images = timed * batch_size
    return images / (time.perf_counter() - start), 1000 * (cpu_seconds() - used) / images


def cpu_seconds() -> float:
    """CPU time of this process and its workers, which other programs on the machine disturb less than the clock."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def settle() -> None:
    """Waits until the pipeline, whose threads are this process's, and the workers have filled their queues and rest."""
    used = -1.0
    while cpu_seconds() - used > 0.015:
        used = cpu_seconds()
        time.sleep(0.2)


def text(row: dict[str, float], digits: int) -> str:
    return f"{row['median']:.{digits}f} ({row['low']:.{digits}f} to {row['high']:.{digits}f})"


if __name__ == "__main__":
    main()
