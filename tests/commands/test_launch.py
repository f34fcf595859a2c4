"""Job files for SLURM: read by bash with stand-ins for SLURM's programs, and wrong input."""

import os
import signal
import stat
import subprocess
import time

import pytest

from clever_fast.cli import main
from clever_fast.commands.slurm_job import Job, slurm_script

PRETRAIN = ["pretrain", "--recipe", "clever_vits16_in100", "--data", "my images", "--execution.device", "cpu"]


@pytest.fixture
def script(tmp_path, capsys):
    """Makes a job file by the command and returns its text."""

    def make(*words: str) -> str:
        command = ["launch", "--slurm", *words, "--", *PRETRAIN, "--run", str(tmp_path / "run")]
        assert main(command) == 0
        return capsys.readouterr().out

    return make


def test_it_asks_slurm_for_what_was_asked_for(script, tmp_path):
    text = script("--nodes", "2", "--gpus-per-node=4", "--time", "1-00:00:00", "--partition", "gpu", "--warning", "300")
    options = {
        line.split("=", 1)[0]: line.split("=", 1)[-1] for line in text.splitlines() if line.startswith("#SBATCH")
    }
    assert options["#SBATCH --nodes"] == "2"
    assert options["#SBATCH --ntasks-per-node"] == options["#SBATCH --gpus-per-node"] == "4"
    assert options["#SBATCH --time"] == "1-00:00:00"
    assert options["#SBATCH --signal"] == "B:USR1@300"
    assert "#SBATCH --requeue" in options
    assert "--data 'my images'" in text
    assert (tmp_path / "run").is_dir()  # where SLURM writes its output
    assert "--cpus-per-task" not in text
    assert "srun --cpus-per-task=$SLURM_CPUS_PER_TASK " in script("--cpus_per_task", "8")


def test_a_node_without_gpus_is_one_process(script):
    text = script("--gpus_per_node", "0")
    assert "--ntasks-per-node=1" in text
    assert "--gpus-per-node" not in text


def job(folder, program: str, **environment: str) -> tuple[subprocess.Popen, dict]:
    """The job file under bash, with an srun that runs `program` and an scontrol that says what it was asked."""
    for name, body in {"srun": program, "scontrol": f'echo "$@" > {folder}/scontrol.log'}.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(stat.S_IRWXU)
    file = folder / "job.sh"
    file.write_text(slurm_script(Job(), ["clever-fast"], ["pretrain", "--run", "a b"], folder / "run"))
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **environment}
    return subprocess.Popen(["bash", str(file)], env=env, stdout=subprocess.DEVNULL)


def asked(folder) -> str:
    log = folder / "scontrol.log"
    return log.read_text().strip() if log.exists() else ""


def test_usr1_reaches_the_run_which_may_take_its_time_and_the_job_is_queued_again(tmp_path):
    program = (
        f"trap 'sleep 0.5; touch {tmp_path}/saved; exit 0' USR1; touch {tmp_path}/begun; while :; do sleep 0.05; done"
    )
    process = job(tmp_path, program)
    deadline = time.monotonic() + 20
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 0
    assert (tmp_path / "saved").exists()
    assert asked(tmp_path) == "requeue 7"


@pytest.mark.parametrize(
    ("code", "restarts", "queued"), [(0, 0, False), (1, 0, False), (2, 0, False), (137, 0, True), (137, 5, False)]
)
def test_only_a_killed_process_is_tried_again_and_not_for_ever(tmp_path, code, restarts, queued):
    process = job(tmp_path, f'[ "$*" = "--kill-on-bad-exit=1 clever-fast pretrain --run a b" ] && exit {code}; exit 99',
                  SLURM_RESTART_COUNT=str(restarts))  # fmt: skip
    assert process.wait(20) == (0 if queued else code)
    assert asked(tmp_path) == ("requeue 7" if queued else "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slurm", "--nodes", "3", "--", *PRETRAIN, "--run", "r"], "choose a multiple of 24"),
        (["--slurm", "--nodes", "0", "--", *PRETRAIN, "--run", "r"], "--nodes is 0"),
        (["--slurm", "--gpus_per_node", "-1", "--", *PRETRAIN, "--run", "r"], "must be at least 0"),
        (["--slurm", "--", "evaluate", "knn"], "begins with pretrain"),
        (["--slurm"], "begins with pretrain"),
        (["--", *PRETRAIN], "--slurm"),
        (["--slurm", "--", "pretrain", "--recipe", "clever_vitt"], "no recipe is called"),
    ],
)
def test_wrong_input_names_the_way_out(words, told, capsys):
    assert main(["launch", *words]) == 2
    assert told in capsys.readouterr().err
