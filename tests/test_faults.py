"""Runs that are killed, told to stop or left without a disk, against the run that nobody disturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clever_fast import checkpoint
from clever_fast.checkpoint.resume import newest
from clever_fast.monitoring import metrics
from clever_fast.options import Execution, Run
from clever_fast.train import train
from tests import killed
from tests.states import assert_same_state, steps

CPU = Execution(device="cpu", precision="fp32", threads=1)


def kill_until_done(recipe, run: Run, rng: random.Random, kills: int) -> Iterator[tuple[str, int]]:
    """Starts the same run again and again and kills it, at most `kills` times; yields moments and lost steps.

    One start in three is killed at once or within three seconds; the others go on for none to two steps, and then up to
    0.3 seconds, or until a checkpoint is being written and up to 0.02 seconds.
    """
    done, temporary = 0, run.folder / checkpoint.TEMPORARY
    for kill in range(kills):
        process = killed.start(recipe, run)
        if kill % 3 == 0:
            process.join(rng.uniform(0, 3))
        else:
            goal = done + rng.randint(0, 2)
            while process.is_alive() and max(steps(run.folder), default=0) < goal:
                time.sleep(1e-3)
            while kill % 3 == 1 and process.is_alive() and not temporary.exists():
                time.sleep(1e-4)
            process.join(rng.uniform(0, 0.02 if kill % 3 == 1 else 0.3))
        process.kill()
        process.join()
        if process.exitcode == 0:
            return
        assert process.exitcode == -signal.SIGKILL
        path = newest(run.folder)
        saved = checkpoint.load(path)["step"] if path else 0
        reported = steps(run.folder)
        assert saved >= done, "a checkpoint that was there is gone"
        lost = max([saved, *reported]) - saved
        moment = "while a checkpoint was written" if temporary.exists() else "between writes"
        yield (moment if reported else "before the first step"), lost
        done = saved


def undisturbed(recipe, run: Run) -> Path:
    process = killed.start(recipe, run)
    process.join()
    assert process.exitcode == 0, Path(f"{run.folder}.log").read_text()
    return run.folder


@pytest.fixture(scope="module")
def whole(small, images, tmp_path_factory) -> Path:
    """The folder of a run of 9 steps that nobody disturbed."""
    return undisturbed(small(), Run(data=images, folder=tmp_path_factory.mktemp("runs") / "whole", log_every=1))


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.soak)])
def test_killed_runs_end_with_the_same_weights(small, images, tmp_path, whole, fault, kills):
    recipe, run = small(), Run(data=images, folder=tmp_path / "killed", log_every=1, save_every=1, keep=2)
    rng, moments, most, runs = random.Random(kills), Counter(), 0, 0
    while (left := kills - moments.total()) > 0:
        runs += 1
        again = replace(run, folder=tmp_path / f"killed{runs}")
        for moment, lost in kill_until_done(recipe, again, rng, left):
            moments[moment] += 1
            most = max(most, lost)
        assert_same_state(whole, undisturbed(recipe, again))
        assert steps(again.folder) == steps(whole), "records of steps are missing"
    assert moments.total() == kills
    assert moments["while a checkpoint was written"] > 0 or kills < 100
    assert most <= 2 * run.save_every  # the steps since the last one, and those during its write
    print(f"{runs} runs, {dict(moments)}, at most {most} steps lost")
    counts = ", ".join(f"{count} {moment}" for moment, count in sorted(moments.items()))
    if kills >= 100:
        fault(
            f"kill -9, {kills} times at random moments ({counts})",
            f"the newest whole checkpoint was found each time; started again, it went on to weights and optimizer "
            f"equal bit for bit to those of the run that nobody killed ({runs} times to the end)",
            f"at most {most} steps a kill, done again; a checkpoint was written every step",
        )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB, where mounting one is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_costs_checkpoints_and_not_the_run(small, images, whole, small_disk, monkeypatch, capsys, fault):
    original, ballast = metrics.Log.train, small_disk / "ballast"

    def fill_and_free(self, progress, values, seconds):
        original(self, progress, values, seconds)
        if progress.step == 3:
            while not (path := newest(small_disk / "run")) or checkpoint.load(path)["step"] < 2:
                time.sleep(0.01)  # a write under way would leave room when it fails
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        elif progress.step == 6:
            during = newest(small_disk / "run")
            assert during
            assert checkpoint.load(during)["step"] <= 3
            ballast.unlink()

    monkeypatch.setattr(metrics.Log, "train", fill_and_free)
    train(small(), CPU, Run(data=images, folder=small_disk / "run", log_every=1, save_every=1))
    said = capsys.readouterr().out.count("No space left on device; training goes on")
    assert said >= 2
    assert_same_state(whole, small_disk / "run")
    missing = len(steps(whole)) - len(steps(small_disk / "run"))
    fault(
        "the disk is full from step 3 to step 6",
        f"{said} checkpoints were not written, which was said; the one before stayed and training went on to the same "
        "weights",
        f"nothing of the run; {missing} lines of metrics.jsonl",
    )


@pytest.mark.parametrize("damage", ["cut short", pytest.param("zeros in the middle", marks=pytest.mark.soak)])
def test_a_broken_checkpoint_is_skipped(small, images, tmp_path, whole, damage, capsys, fault):
    run = Run(data=images, folder=tmp_path / "run", log_every=1, save_every=2, keep=2)
    train(small(), CPU, replace(run, stop_after=5))
    path = run.folder / checkpoint.NEWEST
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.truncate() if damage == "cut short" else file.write(bytes(4096))
    (kept,) = run.folder.glob(checkpoint.KEPT)
    again = 5 - checkpoint.load(kept)["step"]
    capsys.readouterr()
    train(small(), CPU, run)
    said = capsys.readouterr().out
    assert f"{path} is broken" in said
    assert "going on from" in said
    assert_same_state(whole, run.folder)
    assert steps(run.folder) == steps(whole) == list(range(1, 10))
    fault(
        f"checkpoint.pth is broken: {damage}",
        "named, renamed to checkpoint.pth.broken and skipped; the run went on from the one before (`--keep 2`) to the "
        "same weights",
        f"{again} step of 5, done again: those since the checkpoint before",
    )


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_saves_a_vit_s_within_ten_seconds(images, tmp_path, number, fault):
    words = (
        "pretrain --recipe clever_vits16_in100 --recipe.global_size 32 --recipe.local_size 32 --recipe.local_crops 1"
    )
    words += " --recipe.batch_size 2 --execution.device cpu --execution.precision fp32 --log_every 1 --save_every 1"
    command = [sys.executable, "-m", "clever_fast.cli", *words.split(), "--data", str(images), "--run", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # more would wait for one another where the write takes a core
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(command, stdout=said, stderr=said, env=environment) as process,
    ):
        while process.poll() is None and not (tmp_path / checkpoint.NEWEST).exists():
            time.sleep(0.1)
        begin = time.perf_counter()
        process.send_signal(number)
        code = process.wait(60)
        seconds = time.perf_counter() - begin
    assert code == 0, (tmp_path / "said").read_text()
    assert "the same command goes on from there" in (tmp_path / "said").read_text()
    state = checkpoint.load(newest(tmp_path))
    assert state["step"] == steps(tmp_path)[-1]
    size = (tmp_path / checkpoint.NEWEST).stat().st_size / 2**20
    assert seconds < 10
    fault(
        f"{signal.Signals(number).name} to a CLeVER ViT-S ({size:,.0f} MiB of state, a checkpoint on its way)",
        f"saved and left in {seconds:.1f} s, exit code 0",
        "nothing",
    )


@pytest.mark.parametrize("length", [150, pytest.param(3000, marks=pytest.mark.soak)])
def test_memory_stays_flat_over_restarted_epochs(small, images, tmp_path, fault, length):
    """3 steps an epoch; the peak of the resident memory, which a leak of a few KB a step would raise."""
    recipe = small("dino", epochs=length // 3, local_crops=0, global_size=16)
    folder = undisturbed(recipe, Run(data=images, folder=tmp_path / "run", log_every=10, save_every=10))
    peaks = {r["step"]: r["memory_mib"] for r in metrics.read(folder / metrics.LOG) if r["kind"] == "train"}
    early = length // 3
    growth = peaks[length] - peaks[early]
    assert growth < 16, peaks
    if length >= 3000:
        fault(
            f"{length:,} steps in {length // 3:,} epochs, {length // 10} checkpoints",
            f"peak of the host's memory {peaks[early]:,.0f} MiB at step {early:,}, {peaks[length]:,.0f} MiB at the end",
            "nothing",
        )


@pytest.mark.full
def test_another_number_of_processes_goes_on_with_the_same_samples(images, tmp_path, fault):
    """Two gloo processes x batch 4 stop in the middle of an epoch; one process x batch 8 goes on."""
    worker = [str(Path(__file__).parent / "two_ranks.py"), "dino", str(images)]
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    subprocess.run([*two, *worker, str(tmp_path / "changed"), "2"], check=True)
    subprocess.run([sys.executable, *worker, str(tmp_path / "changed")], check=True)
    subprocess.run([sys.executable, *worker, str(tmp_path / "one")], check=True)
    assert steps(tmp_path / "changed") == steps(tmp_path / "one") == list(range(1, 7))
    first, second = (checkpoint.method_state(checkpoint.load(newest(tmp_path / n))) for n in ("changed", "one"))
    apart = max((first[key].float() - second[key].float()).abs().max().item() for key in first)
    assert apart < 2e-6
    losses = [[r["loss"] for r in metrics.read(tmp_path / n / metrics.LOG) if "loss" in r] for n in ("changed", "one")]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-5, atol=0)
    fault(
        "another number of processes (2, then 1; the same global batch)",
        f"the same samples in the same order: no weight differs by more than {apart:.0e} from the run on one process",
        "nothing",
    )
