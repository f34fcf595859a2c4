"""A run in a process of its own that tests may kill; forked from a server that has imported everything."""

import contextlib
import multiprocessing
from pathlib import Path

from clever_fast.options import Execution, Recipe, Run
from clever_fast.train import train

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.killed"])


def start(recipe: Recipe, run: Run) -> multiprocessing.Process:
    """`train` on one thread; what it says is added to the file RUN.log beside the run's folder."""
    process = PROCESSES.Process(target=_train, args=(recipe.as_dict(), run))
    process.start()
    return process


def _train(recipe: dict, run: Run) -> None:
    with Path(f"{run.folder}.log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        train(Recipe.from_dict(recipe), Execution(device="cpu", precision="fp32", threads=1), run)
