"""The sweep over the loader's settings, its choice, and the file that pretrain takes."""

import os

import pytest

from clever_fast.cli import main
from clever_fast.command_line import parse_pretrain
from clever_fast.options import Execution
from clever_fast.performance import tuning
from clever_fast.pipelines.manifest import open_manifest
from tests.recipes import small


def rate(low: float, median: float) -> dict[str, float]:
    return {"low": low, "median": median, "high": 2 * median, "rounds": 5}


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({1: rate(50, 60), 2: rate(90, 100), 4: rate(120, 130)}, 4),
        ({1: rate(50, 60), 2: rate(90, 100), 4: rate(101, 102)}, 2),  # too little
        ({1: rate(50, 60), 2: rate(90, 100), 4: rate(80, 130)}, 2),  # rounds overlap
        ({1: rate(150, 160), 2: rate(90, 100)}, 1),
        ({2: rate(90, 100)}, 2),
    ],
)
def test_the_usual_value_stays_unless_another_is_clearly_faster(rates, chosen):
    assert tuning.choose(rates, 2) == chosen


def test_each_field_is_tried_from_the_best_of_those_before(images, monkeypatch):
    made = []
    speeds = {"threads": {1: 10.0, 2: 20.0}, "prefetch": {1: 50.0, 2: 20.0}}

    class Loader:
        def __init__(self, manifest, recipe, accelerator):
            self.accelerator = accelerator
            made.append((accelerator.execution.threads, accelerator.execution.prefetch))

        def __iter__(self):
            yield self

        def close(self):
            made.append("closed")

    def speed(batches, ready, seconds):
        loader = next(batches)
        assert ready == loader.accelerator.execution.prefetch
        if loader.accelerator.execution.prefetch == 2:
            return speeds["threads"][loader.accelerator.execution.threads]
        return speeds["prefetch"][loader.accelerator.execution.prefetch]

    monkeypatch.setattr(tuning, "PretrainingBatches", Loader)
    monkeypatch.setattr(tuning, "images_per_second", speed)
    start = Execution(device="cpu", threads=1)
    found = list(tuning.sweep(None, small(), start, {"threads": [2], "prefetch": [1, 2]}, seconds=0.0))
    assert made == [(1, 2), (2, 2), "closed", "closed", (2, 1), (2, 2), "closed", "closed"]
    assert [(t.field, t.value) for trials in found for t in trials if t.chosen] == [("threads", 2), ("prefetch", 1)]


def test_a_real_loader_is_timed(images):
    advanced = []
    (trials,) = tuning.sweep(
        open_manifest(images),
        small(batch_size=4),
        Execution(device="cpu", threads=1),
        {"prefetch": [1]},
        seconds=0.0,
        advance=advanced.append,
    )
    assert [trial.value for trial in trials] == [1, 2]
    assert all(0 < t.rate["low"] <= t.rate["median"] <= t.rate["high"] for t in trials)
    assert advanced == ["the loader with prefetch 1", "the loader with prefetch 2"] * tuning.ROUNDS


def test_the_doctor_saves_what_pretrain_takes(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "candidates", lambda: {"threads": [3], "prefetch": [1, 4]})
    monkeypatch.setattr(tuning, "images_per_second", lambda batches, ready, seconds: {4: 99.0}.get(ready, 9.0))
    path = tmp_path / "execution.yaml"
    words = ["--data", str(images), "--run", str(tmp_path), "--save", str(path), "--recipe", "clever_resnet10_cifar10"]
    assert main(["doctor", "--tune", *words]) == 0
    assert "chosen" in capsys.readouterr().out
    options = ["--config", str(path), "--recipe", "clever_demo", "--data", "d", "--run", "r"]
    _, execution, _ = parse_pretrain(options)
    assert (execution.prefetch, execution.threads) == (4, len(os.sched_getaffinity(0)))
    assert path.read_text().startswith("# The loader's fastest settings")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tune"], "--data DIR"),
        (["--tune", "--data", "IMAGES", "--recipe", "nothing"], "no recipe is called 'nothing'"),
        (["--tune", "--data", "IMAGES", "--save", "nowhere/file.yaml"], "choose another --save"),
    ],
)
def test_wrong_input_gets_one_line(images, capsys, monkeypatch, words, message):
    monkeypatch.setattr(tuning, "candidates", dict)
    assert main(["doctor", *(str(images) if word == "IMAGES" else word for word in words)]) == 2
    assert message in capsys.readouterr().err
