"""The scaling model against two processes on two CPU cores, and what the model does not know.

    python -m clever_fast.benchmarks.checks.scaling_check

Measured one after another: the step of one process alone, the steps of two that only begin together, gloo's
all-reduce of the gradients' bytes alone, and the step of two processes under DDP. Each process has one core, which also
runs gloo, so the assumed overlap is 0.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from clever_fast import distributed
from clever_fast.accelerator import Accelerator
from clever_fast.benchmarks.checks.scaling import Assumptions, gradient_bytes, predict
from clever_fast.benchmarks.clocks import SMALL
from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.environment import conditions
from clever_fast.methods import Progress
from clever_fast.options import Execution, Recipe
from clever_fast.performance.timing import noise, summary
from clever_fast.recipes import RECIPES
from clever_fast.train_state import TrainState

RESULTS = Path(__file__).resolve().parents[1] / "results" / "scaling.jsonl"
PROTOTYPES = (65536, 1024)  # a step bound by its gradients, and one that is not
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--prototypes", type=int, nargs="+", default=PROTOTYPES)
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that records are added to")
    options = parser.parse_args()
    for prototypes in options.prototypes:
        small = replace(RECIPES["clever_vitt16_in100"], batch_size=BATCH, **SMALL)
        recipe = replace(small, method=replace(small.method, prototypes=prototypes))
        record = {"benchmark": "scaling", "prototypes": prototypes, **compare(recipe, options.steps), **conditions()}
        print(json.dumps(record))
        append(options.results, record)
    if options.results == RESULTS:
        records = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        write_section(DOCS / "scaling.md", "check", table(records))


def compare(recipe: Recipe, steps: int) -> dict:
    """Seconds of a step and of an all-reduce as measured, the step of two processes as predicted, and the error."""
    size = gradient_bytes(recipe)
    alone = processes(step_seconds, 1, True, recipe, steps)
    apart = processes(step_seconds, 2, False, recipe, steps)
    reduced = processes(all_reduce_seconds, 2, True, size, steps)
    together = processes(step_seconds, 2, True, recipe, steps)
    # over two processes a ring sends each byte once: the time is bytes/bandwidth
    known = {"batch": BATCH, "gradient_bytes": size, "overlap": 0.0, "network_bandwidth": size / reduced["median"]}
    known |= {"network_latency": 0.0, "gpus_per_node": 1}  # the measured time holds the latency
    predicted = {
        name: BATCH
        * 2
        / predict(2, Assumptions(step=step["median"], decode_rate=1e9, storage_bandwidth=1e18, **known)).rate
        for name, step in (("from one alone", alone), ("from two apart", apart))
    }
    return {
        "gradient_bytes": size,
        "batch": BATCH,
        "step_alone": alone,
        "step_apart": apart,
        "all_reduce": reduced,
        "step_together": together,
        "predicted": predicted,
        "error": {name: seconds / together["median"] - 1 for name, seconds in predicted.items()},
    }


def processes(function, count: int, joined: bool, *arguments) -> dict[str, float]:
    """Run `function(*arguments, together)` in `count` processes of one core each; the times of the first, summed up.

    `together` returns once all of them have called it: cores that share a cache or a pipeline slow one another.
    """
    context = torch.multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue, together = context.SimpleQueue(), context.Barrier(count)
    started = [
        context.Process(
            target=_process, args=(queue, rank, count if joined else 1, port, function, (*arguments, together.wait))
        )
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0, f"a process of {function.__name__} ended with {process.exitcode}"
    return summary([seconds for _, times in sorted(queue.get() for _ in started)[:1] for seconds in times])


def _process(queue, rank: int, world: int, port: int, function, arguments: tuple) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    times = function(*arguments)
    distributed.stop()
    queue.put((rank, times))


def step_seconds(recipe: Recipe, steps: int, together: Callable[[], object]) -> list[float]:
    """Of each step on noise, past two that warm up."""
    accelerator = Accelerator.from_execution(Execution(device="cpu", precision="fp32", threads=1))
    trained = TrainState(recipe, accelerator)
    batch, times = noise(recipe, accelerator), []
    for step in range(steps + 2):
        together()
        begin = time.perf_counter()
        trained.step(batch, Progress(1000 + step, 100_000, 500))
        times.append(time.perf_counter() - begin)
    return times[2:]


def all_reduce_seconds(size: int, times: int, together: Callable[[], object]) -> list[float]:
    """Of gloo's sum over so many bytes, in buckets of 25 MiB as DDP sends them, past two that warm up."""
    distributed.start(torch.device("cpu"))
    buckets = torch.zeros(size // 4).split(25 * 2**18)
    measured = []
    for _ in range(times + 2):
        together()
        begin = time.perf_counter()
        for work in [dist.all_reduce(bucket, async_op=True) for bucket in buckets]:
            work.wait()
        measured.append(time.perf_counter() - begin)
    return measured[2:]


def table(records: list[dict]) -> str:
    """The newest record of each number of prototypes. Markdown."""
    newest = {r["prototypes"]: r for r in records}
    lines = [
        "| gradients | one alone | two apart | all-reduce | two together | predicted from one alone | from two apart |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in newest.values():
        times = [
            f"{1e3 * r[name]['median']:.0f} ms" for name in ("step_alone", "step_apart", "all_reduce", "step_together")
        ]
        guesses = [f"{1e3 * seconds:.0f} ms ({r['error'][name]:+.0%})" for name, seconds in r["predicted"].items()]
        lines.append(f"| {r['gradient_bytes'] / 1e6:.0f} MB | {' | '.join(times + guesses)} |")
    last = records[-1]
    return "\n".join(lines) + (
        f"\n\nMedians of {last['step_alone']['rounds']} steps of {last['batch']} images a process, one core each of an "
        f"{last['cpu']}, {last['date']}, commit {last['commit']}; torch {last['versions']['torch']}.\n"
    )


if __name__ == "__main__":
    main()
