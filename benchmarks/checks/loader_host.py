"""What a GPU's loader costs its host, counted without a GPU: operators, launches, CPU milliseconds a batch by part.

    python -m clever_fast.benchmarks.checks.loader_host          # from a checkout: it needs tests/idle_gpu

DALI runs on a CUDA runtime whose kernels do nothing, so what is left is the host's own work. The executor's thread and
the main thread each work through one batch after another, so the slower of the two is the ceiling of a process, however
fast its GPU is. Not in it: decoding, and the launches of the Triton ops, which are counted apart.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.environment import conditions
from clever_fast.pipelines.policies import POLICIES

MODULE = "clever_fast.benchmarks.checks.loader_host"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "loader_host.jsonl"
LAUNCHES = {"deformation": 1, "photometry": 4}  # of Triton kernels in a call of an op


def count(policy: str, folder: Path, *, batch: int, steps: int, rounds: int) -> dict:
    """In a process on the idle runtime: what `steps` batches of a policy cost, the least of the rounds."""
    from clever_fast.pipelines.manifest import open_manifest
    from clever_fast.pipelines.pretraining import PretrainingLoader
    from tests.idle_gpu import patch

    launches = ctypes.c_long.in_dll(patch.install(), "launches")
    loader = PretrainingLoader(open_manifest(folder), POLICIES[policy], seed=0, batch_size=batch, device_id=0)
    sampling = [0.0]
    timed(loader, "_drawn", sampling)
    batches = iter(loader)
    for _ in range(3):
        _, views = next(batches)
    found = []
    for _ in range(rounds):
        before, main, sampled, launched = busy(), time.thread_time(), sampling[0], launches.value
        for _ in range(steps):
            next(batches)
        main, sampled = time.thread_time() - main, sampling[0] - sampled
        after = busy()
        executor = max(after[name] - before.get(name, 0) for name in after if "Executor" in name[1])
        found.append({"executor": executor, "main": main, "sampler": sampled})
    operators = [node.spec.OutputDevice(0) for node in loader._batches._pipeline._ops]
    return {
        "policy": policy,
        "batch": batch,
        "operators": len(operators),
        "gpu_operators": operators.count("gpu"),
        "launches": (launches.value - launched) / steps,
        "triton_launches": sum(LAUNCHES[op] for view in views for op, _ in view.steps),
        "cpu_ms": {part: 1e3 * min(row[part] for row in found) / steps for part in found[0]},
    }


def timed(loader, name: str, seconds: list[float]) -> None:
    """Adds the time that a generator of the loader's takes to `seconds`."""
    made = getattr(loader, name)

    def watched(*arguments) -> Iterator:
        values = made(*arguments)
        while True:
            begin = time.thread_time()
            value = next(values)
            seconds[0] += time.thread_time() - begin
            yield value

    setattr(loader, name, watched)


def busy() -> dict[tuple[str, str], float]:
    """CPU seconds of each thread of this process so far, by its number and name."""
    found = {}
    for thread in Path("/proc/self/task").iterdir():
        name, nanoseconds = (thread / "comm").read_text().strip(), (thread / "schedstat").read_text().split()[0]
        found[thread.name, name] = int(nanoseconds) / 1e9
    return found


def run(policy: str, *, batch: int = 128, steps: int = 8, rounds: int = 5) -> dict:
    """A record of one policy, counted in another process.

    Raises:
        RuntimeError: that process failed.
    """
    from clever_fast.benchmarks.photographs import write_jpegs
    from tests.idle_gpu import patch

    with tempfile.TemporaryDirectory() as folder:
        environment = patch.build(Path(folder))
        write_jpegs(Path(folder) / "images" / "one", 2 * batch, (160, 120))
        words = [policy, f"{folder}/images", *map(str, (batch, steps, rounds))]
        done = subprocess.run(
            [sys.executable, "-m", MODULE, "--count", *words], capture_output=True, text=True, env=environment
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return {"benchmark": "loader_host", **json.loads(done.stdout.splitlines()[-1]), **conditions()}


def ceiling(record: dict) -> float:
    """Images per second that a process cannot exceed."""
    return record["batch"] / max(record["cpu_ms"]["executor"], record["cpu_ms"]["main"]) * 1e3


def table(records: list[dict]) -> str:
    last = records[-1]
    lines = [
        "| policy | DALI operators (GPU) | launches: DALI, Triton | executor, CPU ms | main thread, CPU ms (sampler) "
        "| at most, images/s |",
        "|---|---|---|---|---|---|",
    ]
    for r in records:
        ms = r["cpu_ms"]
        lines.append(
            f"| {r['policy']} | {r['operators']} ({r['gpu_operators']}) | {r['launches']:.0f}, {r['triton_launches']} "
            f"| {ms['executor']:.1f} | {ms['main']:.1f} ({ms['sampler']:.1f}) | {ceiling(r):,.0f} |"
        )
    return "\n".join(lines) + (
        f"\n\nBatches of {last['batch']}, the least of five rounds, other programs running too; {last['cores']} cores "
        f"of an {last['cpu']}, {last['date']}, commit {last['commit']}. Kernels do nothing. Not measured on a GPU.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that records are added to")
    options = parser.parse_args()
    if options.count:
        policy, folder, *numbers = options.count
        print(json.dumps(count(policy, Path(folder), **dict(zip(("batch", "steps", "rounds"), map(int, numbers))))))
        return
    records = [run(policy) for policy in ("baug", "caug", "caug_plus", "moco_caug_plus")]
    for record in records:
        append(options.results, record)
    print(table(records))
    if options.results == RESULTS:
        write_section(DOCS / "speed.md", "loader_host", table(records))


if __name__ == "__main__":
    main()
