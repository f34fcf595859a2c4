"""`clever-fast profile` on a CPU: phases that add up to the step, a trace that names them, the tools' command lines."""

import gzip
import json
import os
from types import SimpleNamespace

import pytest

from clever_fast import recipes
from clever_fast.cli import main
from clever_fast.commands import profile as command
from clever_fast.performance import profiling
from clever_fast.performance.profiling import split
from tests.recipes import small

WORDS = ["--recipe", "tiny", "--execution.device", "cpu", "--execution.precision", "fp32"]


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", small("dino", batch_size=4))


def test_phases_are_a_step_s_share_of_all_and_what_is_left_is_other():
    sums = {"data": 10.0, "teacher": 20.0, "loss": 4.0, "distillation_loss": 3.0, "step": 60.0}
    assert split(sums, 2) == {"data": 5.0, "teacher": 10.0, "loss": 2.0, "other": 18.0}
    assert profiling.ops(sums, 2) == {"distillation_loss": 1.5}


def test_a_profile_of_a_folder_of_images(tiny, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "MOST_TRACED", 1)
    assert main(["profile", *WORDS, "--data", str(images), "--out", str(tmp_path), "--steps", "2"]) == 0
    (record,) = (json.loads(line) for line in (tmp_path / "phases.jsonl").read_text().splitlines())
    phases = record["phases_ms"]
    assert list(phases) == [*profiling.PHASES, "other"]
    assert all(ms > 0 for ms in phases.values())
    assert set(record["ops_ms"]) == {"distillation_loss", "clip_each_", "lerp_each_"}
    assert record["ops_ms"]["distillation_loss"] < phases["loss"]
    assert len(record["costliest"]) == 10
    assert any("convolution" in cost["name"] for cost in record["costliest"])
    with gzip.open(tmp_path / "trace.json.gz") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"step", "data", "teacher", "student", "backward", "ema", "lerp_each_"} <= names
    assert (tmp_path / "phases.png").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert "nsys profile --capture-range=cudaProfilerApi" in shown
    assert "--window_only true" in shown


def test_phases_of_noise_are_at_hand_for_other_programs():
    from clever_fast.accelerator import Accelerator
    from clever_fast.options import Execution

    accelerator = Accelerator.from_execution(Execution(device="cpu", precision="fp32", threads=1))
    found = profiling.phases(small("dino", batch_size=2), accelerator, steps=1)
    assert list(found) == [*profiling.PHASES, "other"]
    assert found["backward"] > found["data"]


def test_the_window_runs_the_steps_and_writes_nothing(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    command = profiling.commands([*WORDS, "--out", str(out), "--steps", "3"], out)["ncu"]
    assert main(command[command.index("clever_fast.cli") + 1 :]) == 0
    assert not out.exists()
    assert capsys.readouterr().out == ""


def test_tools_on_the_path_are_run_where_there_is_a_gpu(tmp_path, monkeypatch, capsys):
    tool = tmp_path / "nsys"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\nexit 3\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    profiling.run_tools(["--recipe", "tiny"], tmp_path)
    assert "needs a GPU" in capsys.readouterr().out
    assert not (tmp_path / "told").exists()
    monkeypatch.setattr(profiling.torch, "cuda", SimpleNamespace(is_available=lambda: True))
    profiling.run_tools(["--recipe", "tiny"], tmp_path)
    told = (tmp_path / "told").read_text()
    assert "--trace=cuda,nvtx" in told
    assert told.rstrip().endswith("profile --recipe tiny --window_only true")
    shown = capsys.readouterr().out
    assert "nsys ended with exit code 3" in shown
    assert "ncu is not on PATH" in shown


def test_the_profilers_start_and_stop_stand_around_the_window(monkeypatch):
    calls = []
    cuda = SimpleNamespace(
        is_available=lambda: True,
        synchronize=lambda: calls.append("wait"),
        profiler=SimpleNamespace(start=lambda: calls.append("start"), stop=lambda: calls.append("stop")),
        nvtx=SimpleNamespace(range=lambda name: profiling.profile),
    )
    monkeypatch.setattr(profiling.torch, "cuda", cuda)
    with profiling.window():
        calls.append("steps")
    assert calls == ["wait", "start", "steps", "wait", "stop"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "tinny"], "did you mean"),
        ([*WORDS, "--steps", "0"], "steps is 0"),
        ([*WORDS, "--step", "3"], "--steps"),
        ([*WORDS, "--data", "nowhere"], "nowhere"),
        ([*WORDS, "--execution.prefetch", "0"], "execution.prefetch is 0; it must be at least 1"),
        ([*WORDS, "--execution.hw_decoder_load", "2"], "execution.hw_decoder_load is 2"),
    ],
)
def test_wrong_input_gets_one_line(tiny, capsys, words, message):
    assert main(["profile", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_folder_that_cannot_be_written(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["profile", *WORDS, "--out", str(tmp_path / "file" / "out"), "--steps", "1"]) == 2
    assert "choose another --out" in capsys.readouterr().err
