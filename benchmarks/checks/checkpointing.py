"""What a checkpoint costs the training: the seconds it holds the loop up, beside those of the write.

    python -m clever_fast.benchmarks.checks.checkpointing --folder FOLDER_ON_THE_DISK

The state is that of a recipe after its last layer has begun to learn: weights of student and teacher, two moments.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from clever_fast import checkpoint
from clever_fast.accelerator import Accelerator
from clever_fast.benchmarks.measure import append
from clever_fast.checkpoint.writer import Writer
from clever_fast.environment import conditions
from clever_fast.options import Execution
from clever_fast.performance.timing import summary
from clever_fast.recipes import RECIPES
from clever_fast.train_state import TrainState

RESULTS = Path(__file__).resolve().parents[1] / "results" / "checkpointing.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="clever_vits16_in100")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the system's for temporary files")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        record = measure(options.recipe, Path(folder), options.rounds)
    record |= conditions()
    append(RESULTS, record)
    print(json.dumps(record))


def measure(name: str, folder: Path, rounds: int) -> dict:
    """Seconds of the first copy (which takes its memory), of the later ones, and of the writes."""
    trained = TrainState(RECIPES[name], Accelerator.from_execution(Execution(device="cpu", precision="fp32")))
    for parameter in trained.method.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    trained.optimizer.step()
    trained.optimizer.zero_grad(set_to_none=True)
    state = checkpoint.content(trained.state_dict(), recipe=RECIPES[name], data={}, step=1, epoch=0)
    writer, held_up, written = Writer(folder, 1, print), [], []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        writer.begin(state)
        held_up.append(time.perf_counter() - begin)
        writer.wait()
        written.append(time.perf_counter() - begin - held_up[-1])
    writer.close()
    return {
        "benchmark": "checkpointing",
        "recipe": name,
        "mib": (folder / checkpoint.NEWEST).stat().st_size / 2**20,
        "first_copy_s": held_up[0],
        "copy_s": summary(held_up[1:]),
        "write_s": summary(written[1:]),
    }


if __name__ == "__main__":
    main()
