"""`pretrain` told to stop at each of its phases: one line, its exit code, and no step of a run lost."""

import signal
import subprocess
import sys
import time

import pytest

from clever_fast import checkpoint

QUICK = ["--recipe", "clever_demo", "--recipe.batch_size", "8", "--recipe.epochs", "400", "--log_every", "1"]
QUICK += ["--recipe.global_size", "32", "--recipe.local_size", "16", "--execution.device", "cpu"]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGUSR1: 0, signal.SIGUSR2: 0}


def start(images, run) -> subprocess.Popen:
    words = ["pretrain", *QUICK, "--data", str(images), "--run", str(run)]
    command = [sys.executable, "-u", "-m", "clever_fast.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.full
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_run_saves_what_it_has_reported(images, tmp_path, number):
    process = start(images, tmp_path / "run")
    line = next(line for line in process.stdout if line.startswith("epoch "))
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert process.returncode == CODES[number]
    assert said.splitlines()[-1].startswith("stopped at step ")
    assert checkpoint.load(tmp_path / "run" / checkpoint.NEWEST)["step"] >= int(line.split()[3].split("/")[0])


@pytest.mark.full
@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_before_the_first_step_it_leaves_at_once(images, tmp_path, number, seconds):
    process = start(images, tmp_path / "run")
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == CODES[number]
    assert errors in ("", f"clever-fast: stopped by {number.name}\n")  # nothing where the loop had begun


@pytest.mark.full
def test_a_second_interrupt_is_no_traceback(images, tmp_path):
    process = start(images, tmp_path / "run")
    next(line for line in process.stdout if line.startswith("epoch "))
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
