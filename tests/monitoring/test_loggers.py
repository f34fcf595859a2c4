"""Loggers by stand-in modules: what they are given, what they are resumed by, what their failures cost. The real ones
where they are installed."""

import json
import math
import sqlite3
import struct
import sys
import time
from types import ModuleType

import pytest

from clever_fast.errors import UserError
from clever_fast.methods import Progress
from clever_fast.monitoring import metrics
from clever_fast.monitoring.loggers import open_loggers
from clever_fast.monitoring.metrics import Log


@pytest.fixture(params=["wandb", "trackio"])
def tracker(request, monkeypatch):
    """A module with wandb's three functions that keeps what it is told."""
    module = ModuleType(request.param)
    module.runs, module.logged, module.finished = [], [], 0

    def finish() -> None:
        module.finished += 1

    module.init = lambda **options: module.runs.append(options)
    module.log = lambda values, step: module.logged.append((step, values))
    module.finish = finish
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def values(folder, tracker, start_step: int = 0, loss: float = 2.0) -> None:
    log = Log(folder, title="run", start_step=start_step, loggers=(tracker.__name__,))
    report = {"loss": loss, "lr": 0.1, "images_per_second": 9.0, "data_wait": 0.0, "memory_mib": 1.0}
    log.train(Progress(start_step + 10, 100, 10), report | {"seconds_per_step": 1.0}, 1.0)
    log.evaluation(Progress(start_step + 10, 100, 10), {"knn@20 all": 30.0})
    log.close()


def test_reports_reach_a_tracker_whose_run_is_gone_on_with(tmp_path, tracker):
    values(tmp_path, tracker)
    values(tmp_path, tracker, 10)
    assert [step for step, _ in tracker.logged] == [10, 10, 20, 20]
    assert tracker.logged[0][1]["train/loss"] == 2.0
    assert tracker.logged[1][1] == {"knn/knn@20 all": 30.0}
    first, second = tracker.runs
    assert first == second
    assert first["name"].startswith(f"{tmp_path.name}-")
    assert first["resume"] == "allow"
    assert tracker.finished == 2


def test_another_folder_is_another_run(tmp_path, tracker):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        values(tmp_path / name, tracker)
    assert tracker.runs[0]["name"] != tracker.runs[1]["name"]


def test_a_tracker_that_fails_is_left_out_and_the_records_stay(tmp_path, tracker, capsys):
    def fail(values, step):
        raise ConnectionError("no route")

    tracker.log = fail
    values(tmp_path, tracker)
    assert capsys.readouterr().out.count("left out from here on: no route") == 1
    assert [r["kind"] for r in metrics.read(tmp_path / metrics.LOG)] == ["train", "knn"]


def test_a_tracker_that_fails_at_the_end_is_named(tmp_path, tracker, capsys):
    def fail():
        raise ConnectionError("no route")

    tracker.finish = fail
    values(tmp_path, tracker)
    assert f"{tracker.__name__} did not finish: no route" in capsys.readouterr().out


def test_a_tracker_that_does_not_start_or_is_not_there_is_named(tmp_path, tracker, monkeypatch):
    def refuse(**options):
        raise RuntimeError("no account")

    tracker.init = refuse
    with pytest.raises(UserError, match=f"{tracker.__name__} does not start: no account"):
        open_loggers((tracker.__name__,), tmp_path, 0)
    monkeypatch.setitem(sys.modules, tracker.__name__, None)
    with pytest.raises(UserError, match=f"pip install {tracker.__name__}"):
        open_loggers((tracker.__name__,), tmp_path, 0)


def test_tensorboard_by_itself_and_nothing_where_nothing_is_asked_for(tmp_path, monkeypatch):
    assert open_loggers((), tmp_path, 0) == []
    (board,) = open_loggers(None, tmp_path, 0)
    board.write({"train/loss": 1.0}, 1)
    board.close()
    assert list((tmp_path / "tensorboard").glob("events*"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert open_loggers(None, tmp_path, 0) == []


def test_the_command_line_takes_a_list():
    from clever_fast.command_line import parse_pretrain

    words = ["--recipe", "clever_demo", "--data", "d", "--run", "r"]
    assert parse_pretrain(words)[2].loggers is None
    assert parse_pretrain([*words, "--loggers", "[tensorboard, wandb]"])[2].loggers == ("tensorboard", "wandb")
    assert parse_pretrain([*words, "--loggers", "[]"])[2].loggers == ()
    with pytest.raises(UserError, match="mlflow"):
        parse_pretrain([*words, "--loggers", "[mlflow]"])


def wandb_records(path):
    """What wandb keeps of an offline run: a log of LevelDB's format, in blocks of 32 KiB, after 7 bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 0 < (rest := -at % 2**15) < 7:
            at += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(whole)
            whole = b""


@pytest.mark.full
def test_what_wandb_itself_keeps_of_a_run_and_of_its_resume(tmp_path, monkeypatch):
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb = pytest.importorskip("wandb")
    values(tmp_path, wandb)
    values(tmp_path, wandb, 10, loss=math.nan)
    end, kept = time.monotonic() + 20, []
    while sum(record.HasField("exit") for record in kept) < 2:  # another process writes, and may lag behind
        assert time.monotonic() < end, "no end of the runs in wandb's files"
        paths = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
        kept = [record for path in paths for record in wandb_records(path)]
    assert {record.run.run_id for record in kept} == {"", (tmp_path / "wandb.id").read_text()}
    found = {}
    for history in (record.history for record in kept if record.HasField("history")):
        items = {item.nested_key[0] if item.nested_key else item.key: item.value_json for item in history.item}
        found[history.step.num] = items["train/loss"], items["knn/knn@20 all"]
    assert found == {10: ("2", "30"), 20: ("NaN", "30")}


@pytest.mark.full
def test_what_trackio_itself_keeps_of_a_run_and_of_its_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "home"))
    trackio = pytest.importorskip("trackio")
    values(tmp_path, trackio)
    values(tmp_path, trackio, 10, loss=math.nan)
    with sqlite3.connect(tmp_path / "home" / "clever_fast.db") as base:
        rows = base.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert len({run for run, *_ in rows}) == 1
    assert {name for _, name, *_ in rows} == {(tmp_path / "trackio.id").read_text()}
    assert [step for *_, step, _ in rows] == [10, 10, 20, 20]
    kept = [json.loads(metrics) for *_, metrics in rows]
    assert [row["train/loss"] for row in kept[::2]] == [2.0, "NaN"]
    assert kept[1] == {"knn/knn@20 all": 30.0}
