"""The runs of a sweep as processes: one at a time on each device."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from clever_fast.sweeps.grid import Trial, score
from clever_fast.sweeps.trial import STOPPED

POLL = 0.2  # seconds


class Outcome(NamedTuple):
    """How a run ended."""

    trial: Trial
    line: str  # for people
    failed: bool


def work(trials: list[Trial], devices: list[str | None]) -> Iterator[Outcome]:
    """Run `trials` in order, one process a device (None: whatever there is); yields each as it ends.

    A run that fails does not stop the others. SIGINT, SIGTERM, SIGHUP and SIGUSR1 are handed to the processes, which
    save and leave; no other is started then.
    """
    waiting, running, free, stopping = list(trials), {}, list(devices), False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for process, _, _ in running.values():
            process.send_signal(signal.SIGTERM)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        while running or (waiting and not stopping):
            while waiting and free and not stopping:
                trial, device = waiting.pop(0), free.pop(0)
                running[trial.name] = _start(trial, device), trial, device
            for name, (process, trial, device) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    free.append(device)
                    yield _outcome(trial, process.returncode, stopping)
            time.sleep(POLL)
    finally:
        stop()
        for process, _, _ in running.values():
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def log(trial: Trial) -> Path:
    """The file that a run's own words go to."""
    return trial.folder.with_name(trial.folder.name + ".log")


def _start(trial: Trial, device: str | None) -> subprocess.Popen:
    log(trial).parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
    with log(trial).open("a") as file:
        command = [sys.executable, "-m", "clever_fast.sweeps.trial", json.dumps(trial.labels), *trial.words]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def _outcome(trial: Trial, code: int, stopping: bool) -> Outcome:
    if result := score(trial):  # also of one that was told to stop when it had written it
        return Outcome(trial, f"{trial.name}: {result['accuracy']['trained all']:.2f} %", failed=False)
    if code == STOPPED or stopping:
        return Outcome(trial, f"{trial.name}: stopped", failed=False)
    lines = log(trial).read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    return Outcome(trial, f"{trial.name}: failed: {last} (exit code {code}; {log(trial)})", failed=True)
