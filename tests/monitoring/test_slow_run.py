"""The clock of a run, its one warning, the garbage collector during a run, and what a run says it is computed on."""

import gc
import time
from dataclasses import replace
from types import SimpleNamespace

import torch

from clever_fast import data
from clever_fast.accelerator import Accelerator
from clever_fast.monitoring import metrics, slow_run
from clever_fast.monitoring.metrics import Clock
from clever_fast.monitoring.slow_run import Pace, frozen_garbage
from clever_fast.options import Execution, Run
from clever_fast.train import train

CPU = Execution(device="cpu", precision="fp32", threads=2)


def interval(seconds: float, waited: float, steps: int = 10) -> SimpleNamespace:
    return SimpleNamespace(steps=steps, seconds=steps * seconds, waited=steps * waited)


def warnings(*intervals: tuple[float, float]) -> list[str]:
    watched = Pace(Accelerator.from_execution(CPU))
    return [told for pair in intervals if (told := watched.warning(interval(*pair)))]


def test_a_steady_run_is_not_warned_about():
    assert not warnings((9.0, 5.0), *[(1.0, 0.1), (1.9, 0.9), (1.2, 0.0)] * 4)


def test_waiting_for_data_is_named_once():
    (told,) = warnings((9.0, 5.0), *[(1.0, 0.6)] * 9)
    assert "a step takes 1,000 ms and could take 400 ms" in told
    assert "60% of the time it waits for data (decoded on the CPU, 2 threads)" in told
    assert "doctor --tune" in told


def test_a_step_that_became_slower_is_told_from_one_that_waits():
    (told,) = warnings((9.0, 5.0), (0.1, 0.0), *[(0.3, 0.01)] * 5)
    assert "something else uses this machine" in told


def test_two_slow_intervals_are_not_enough():
    assert not warnings((9.0, 5.0), *[(1.0, 0.1), (3.0, 0.1), (3.0, 0.1)] * 3)


def test_a_clock_counts_what_it_waited_for():
    clock = Clock(torch.device("cpu"))
    assert clock.waiting(lambda: time.sleep(0.05) or "batch") == "batch"
    time.sleep(0.02)
    assert clock.steps == 1
    assert 0.05 <= clock.waited <= clock.seconds - 0.02
    clock.restart()
    assert (clock.steps, clock.waited) == (0, 0)


def test_a_run_with_a_slow_loader_is_warned_about(small, images, tmp_path, monkeypatch, capsys):
    original = data.PretrainingBatches.__iter__

    def slowed(self):
        for batch in original(self):
            time.sleep(0.5)
            yield batch

    monkeypatch.setattr(data.PretrainingBatches, "__iter__", slowed)
    monkeypatch.setattr(slow_run, "SLOW", 1.2)  # whatever the machine does besides
    train(small(epochs=2), CPU, Run(data=images, folder=tmp_path, log_every=1))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("slow:")]
    assert len(told) == 1
    assert "it waits for data" in told[0]


def test_what_is_alive_is_frozen_and_freed_afterwards():
    with frozen_garbage() as freeze:
        assert gc.get_freeze_count() == 0
        freeze()
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


def test_a_loader_gives_its_pipeline_back_though_the_run_has_frozen_it(images):
    import weakref

    from clever_fast.data import PretrainingBatches
    from clever_fast.pipelines.manifest import open_manifest
    from tests.recipes import small

    batches = PretrainingBatches(open_manifest(images), small(), Accelerator.from_execution(CPU))
    next(iter(batches))
    pipeline = weakref.ref(batches.loader._batches._pipeline)
    with frozen_garbage() as freeze:
        freeze()
        batches.close()
        assert pipeline() is None
        assert gc.get_freeze_count() > 10_000


def test_a_run_says_on_what_it_is_computed_each_time_it_starts(small, images, tmp_path):
    run = Run(data=images, folder=tmp_path, log_every=1, stop_after=2)
    train(small(), CPU, run)
    train(small(), replace(CPU, prefetch=3), replace(run, stop_after=3))
    records = metrics.read(tmp_path / metrics.LOG)
    assert [(r["kind"], r["step"]) for r in records] == [
        ("start", 0),
        ("train", 1),
        ("train", 2),
        ("start", 2),
        ("train", 3),
    ]
    first, second = (r for r in records if r["kind"] == "start")
    assert (first["prefetch"], second["prefetch"]) == (2, 3)
    assert first["versions"]["torch"] == torch.__version__.split("+")[0]
    assert first["device"] == "cpu"
    assert {"cudnn_benchmark", "tf32", "processes", "commit", "precision", "threads"} <= first.keys()
