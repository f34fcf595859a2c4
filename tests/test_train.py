"""The loop as a user runs it: resume, stopping, data parallelism, and what Execution may not change."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clever_fast import checkpoint
from clever_fast.monitoring import metrics
from clever_fast.nonfinite.stop import NotFiniteError
from clever_fast.options import EXECUTIONS, Execution, Run
from clever_fast.train import train
from tests.images import readable, unreadable
from tests.recipes import tiny
from tests.states import assert_same_state, steps

CPU = Execution(device="cpu", precision="fp32", threads=2)
PLAIN = {name: getattr(EXECUTIONS["plain"], name) for name in ("kernels", "optimizer", "channels_last")}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.method_state(checkpoint.load(folder / checkpoint.NEWEST))


def losses(folder: Path) -> list[float]:
    return [r["loss"] for r in metrics.read(folder / metrics.LOG) if r["kind"] == "train"]


RESUMER = """
import sys
from clever_fast.train import train
from pathlib import Path
from tests.recipes import tiny
from clever_fast.options import Execution, Run
method, data, folder, stop = sys.argv[1:]
train(tiny(method), Execution(device="cpu", precision="fp32", threads=2),
      Run(data=Path(data), folder=Path(folder), log_every=1, stop_after=int(stop) or None))
"""


def run_in_a_new_process(*arguments: object) -> None:
    subprocess.run([sys.executable, "-c", RESUMER, *map(str, arguments)], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("method", ["dino", "clever", "ddcl"])
def test_resume_in_a_new_process_is_bit_identical(images, tmp_path, method):
    """Stopped in the middle of an epoch and gone on with elsewhere; drop path, BatchNorm, elastic crops all on."""
    train(tiny(method), CPU, Run(data=images, folder=tmp_path / "whole", log_every=1))
    for stop in (2, 4, 0):  # epochs have 3 steps
        run_in_a_new_process(method, images, tmp_path / "parts", stop)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert steps(tmp_path / "parts") == list(range(1, 10))


def test_records_of_steps_done_again_are_replaced(small, images, tmp_path):
    run = Run(data=images, folder=tmp_path, log_every=1, save_every=2)
    train(small(), CPU, replace(run, stop_after=3))
    (tmp_path / checkpoint.NEWEST).unlink()
    train(small(), CPU, replace(run, stop_after=2))
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("method", ["dino", "clever"])
def test_two_processes_train_what_one_does(images, tmp_path, method):
    """1 x batch 8 against 2 gloo processes x batch 4: a ViT without drop path, so that nothing depends on the rank."""
    script = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    worker = [str(Path(__file__).parent / "two_ranks.py"), method, str(images)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*script, *worker, str(tmp_path / "two")], check=True, env=env)
    subprocess.run([sys.executable, *worker, str(tmp_path / "one")], check=True, env=env)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    start = torch.load(tmp_path / "one" / "initial.pth", weights_only=True)
    tolerance = 2e-6
    assert len(losses(tmp_path / "one")) == 6
    torch.testing.assert_close(
        torch.tensor(losses(tmp_path / "one")), torch.tensor(losses(tmp_path / "two")), rtol=1e-5, atol=0
    )
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")
    moved = {name: (value - start[name]).abs().max().item() for name, value in one.items()}
    for part in ("student.backbone", "student.head.", "teacher.backbone", "center"):
        assert max(m for name, m in moved.items() if name.startswith(part)) > 100 * tolerance, part


@pytest.mark.parametrize("change", [{"channels_last": False}, {"threads": 1}, PLAIN])
def test_execution_changes_nothing_but_time(small, images, tmp_path, change):
    run = Run(data=images, folder=tmp_path / "a", log_every=1, stop_after=4)
    train(small(base_lr=1e-3, warmup_epochs=0), CPU, run)
    train(small(base_lr=1e-3, warmup_epochs=0), replace(CPU, **change), replace(run, folder=tmp_path / "b"))
    torch.testing.assert_close(
        torch.tensor(losses(tmp_path / "a")), torch.tensor(losses(tmp_path / "b")), rtol=2e-4, atol=1e-5
    )


def test_bf16_stays_near_fp32(small, images, tmp_path):
    run = Run(data=images, folder=tmp_path / "a", log_every=1, stop_after=3)
    train(small(base_lr=1e-3), CPU, run)
    train(small(base_lr=1e-3), replace(CPU, precision="bf16"), replace(run, folder=tmp_path / "b"))
    a, b = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert a != b
    torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=0.02, atol=0)


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_good_weights(small, images, tmp_path):
    recipe = small("dino", base_lr=1e30, min_lr=1.0, warmup_epochs=0, clip_grad=0.0)  # blows up within a few steps
    with pytest.raises(NotFiniteError, match=r"at step (\d+)") as error:
        train(recipe, CPU, Run(data=images, folder=tmp_path, log_every=4))
    state = checkpoint.load(tmp_path / checkpoint.NEWEST)
    step = state["step"]
    assert f"at step {step};" in str(error.value)
    assert all(t.isfinite().all() for t in checkpoint.method_state(state).values() if t.is_floating_point())
    batch = json.loads((tmp_path / f"not_finite_step_{step}.json").read_text())
    assert len(batch["samples"]["index"]) == recipe.batch_size
    assert (images / "train" / batch["samples"]["path"][0]).exists()


def test_a_checkpoint_between_two_reports_never_holds_steps_that_were_skipped(small, images, tmp_path):
    recipe = small("dino", base_lr=1e30, min_lr=1.0, warmup_epochs=0, clip_grad=0.0)
    with pytest.raises(NotFiniteError):
        train(recipe, CPU, Run(data=images, folder=tmp_path, log_every=1000, save_every=1, keep=20))
    failed = checkpoint.load(tmp_path / checkpoint.NEWEST)["step"]
    steps = [checkpoint.load(path)["step"] for path in tmp_path.glob("checkpoint-*.pth")]
    assert max(steps, default=0) <= failed


def test_a_disk_that_fails_during_the_run_costs_one_checkpoint(small, images, tmp_path, monkeypatch, capsys):
    original, failed = os.replace, []

    def full_once(source, target):
        if Path(target).name == checkpoint.NEWEST and not failed:
            failed.append(target)
            raise OSError(28, "No space left on device")
        original(source, target)

    monkeypatch.setattr(os, "replace", full_once)
    train(small(), CPU, Run(data=images, folder=tmp_path, log_every=1))
    assert "No space left" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / checkpoint.NEWEST)["step"] == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_saves_and_leaves(small, images, tmp_path, number, monkeypatch):
    original, calls = metrics.Log.train, []

    def train_then_signal(self, progress, values, seconds):
        original(self, progress, values, seconds)
        calls.append(progress.step)
        if progress.step == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(metrics.Log, "train", train_then_signal)
    before = signal.getsignal(number)
    train(small(), CPU, Run(data=images, folder=tmp_path, log_every=1))
    assert checkpoint.load(tmp_path / checkpoint.NEWEST)["step"] == 2
    assert calls == [1, 2]
    assert signal.getsignal(number) == before


def test_a_file_that_breaks_after_indexing_is_replaced_and_reported(small, images, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    train(small(), CPU, Run(data=data, folder=tmp_path / "run", log_every=1, stop_after=1))
    with (data / "train" / "bars" / "3.jpg").open("r+b") as file:  # in place: the folder looks unchanged
        file.truncate(100)
    train(small(), CPU, Run(data=data, folder=tmp_path / "run", log_every=1))
    assert "bars/3.jpg" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "run" / checkpoint.NEWEST)["step"] == 9


def test_files_of_every_kind_are_trained_on_or_left_out(small, tmp_path, capsys):
    folder = tmp_path / "data" / "everything"
    folder.mkdir(parents=True)
    files = readable() | unreadable()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    recipe = small(epochs=1, batch_size=len(readable()))  # every readable file is in the one batch
    train(recipe, CPU, Run(data=tmp_path / "data", folder=tmp_path / "run"))
    shown = capsys.readouterr().out
    assert f"{len(readable())} images, 1 classes, {len(unreadable())} unreadable" in shown
    assert all(name in shown for name in unreadable())
    assert checkpoint.load(tmp_path / "run" / checkpoint.NEWEST)["step"] == 1


def test_knn_during_pretraining_does_not_change_the_run(small, images, tmp_path):
    train(small(), CPU, Run(data=images, folder=tmp_path / "a", log_every=1))
    train(small(), CPU, Run(data=images, folder=tmp_path / "b", log_every=1, knn_every=1))
    assert_same_state(tmp_path / "a", tmp_path / "b")
    knn = [r for r in metrics.read(tmp_path / "b" / metrics.LOG) if r["kind"] == "knn"]
    assert [r["epoch"] for r in knn] == [1, 2, 3]
    assert {"knn@20 all", "knn@20 IR", "knn@20 EF"} <= knn[0].keys()
