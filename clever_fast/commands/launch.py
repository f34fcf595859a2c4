"""`clever-fast launch --slurm`: a job file for many nodes."""

import os
import sys
from pathlib import Path

from clever_fast.command_line import Parser, parse_pretrain
from clever_fast.commands.slurm_job import Job, slurm_script
from clever_fast.errors import UserError

USAGE = "clever-fast launch --slurm [--nodes N --gpus_per_node G --time 24:00:00 ...] -- pretrain --recipe ..."


def launch(words: list[str]) -> None:
    """Print a job file for what follows `--`, after reading it as `pretrain` would."""
    split = words.index("--") if "--" in words else len(words)
    command = words[split + 1 :]
    parser = Parser(prog="clever-fast launch", usage=USAGE)
    parser.add_argument("--slurm", action="store_true", help="print a file for sbatch")
    parser.add_class_arguments(Job)
    known = parser.parse_args([_with_underscores(word) for word in words[:split]]).as_dict()
    if not known.pop("slurm"):
        raise UserError(f"launch prints job files for SLURM: {USAGE}; torchrun needs none (docs/training.md)")
    if command[:1] != ["pretrain"]:
        raise UserError(f"what is to run stands after `--` and begins with pretrain: {USAGE}")
    job = Job(**known)
    recipe, _, run = parse_pretrain(command[1:])
    if recipe.batch_size % job.processes:
        raise UserError(
            f"recipe.batch_size {recipe.batch_size} does not divide into {job.processes} processes "
            f"({job.nodes} nodes of {max(1, job.gpus_per_node)}): choose a multiple of {job.processes}"
        )
    # The output's folder has to be there before the job, or SLURM drops what it says.
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the run folder {run.folder}: {error.strerror}; give another --run") from None
    print(slurm_script(job, _program(), command, run.folder), end="")


def _with_underscores(word: str) -> str:
    """--gpus-per-node, as SLURM spells it, is --gpus_per_node here."""
    name, equals, value = word.partition("=")
    return (name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name) + equals + value


def _program() -> list[str]:
    """This Python's clever-fast, so that the job needs no environment to be activated."""
    script = Path(sys.executable).with_name("clever-fast")
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "clever_fast.cli"]
