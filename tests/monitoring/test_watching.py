"""A run's panel: what it says of a run that goes, has ended, failed or fell silent, and how it reads a growing log."""

import io
import json

import pytest
from rich.console import Console

from clever_fast.cli import main
from clever_fast.monitoring.watching import LOG, Records, duration, panel, sparkline, state


def report(step: int, **values) -> dict:
    usual = {"loss": 6.0 - step / 100, "images_per_second": 100.0 + step, "data_wait": 0.1, "memory_mib": 900.0}
    return (
        {"kind": "train", "step": step, "epoch": step / 10, "seconds": 2.0 * step, "seconds_per_step": 2.0}
        | usual
        | values
    )


START = {"kind": "start", "step": 0, "epoch": 0, "seconds": 0, "title": "clever vit", "steps": 100}


def write(folder, *records, mode="a") -> Records:
    with (folder / LOG).open(mode) as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    found = Records(folder)
    found.refresh()
    return found


def text(records: Records, now: float | None = None) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(panel(records, records.modified if now is None else now))
    return console.export_text()


def test_a_sparkline_goes_from_the_least_to_the_greatest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 3, 9, 11], width=2) == "▁█"  # means 2 and 10
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([None, 1.0, None, 2.0]) == "▁█"
    assert sparkline([None]) == sparkline([]) == ""


@pytest.mark.parametrize(
    ("seconds", "told"), [(8, "8 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (273600, "3 d 4 h")]
)
def test_durations(seconds, told):
    assert duration(seconds) == told


def test_a_running_run_shows_where_it_stands(tmp_path):
    scores = {"kind": "knn", "step": 20, "epoch": 2, "seconds": 40, "knn@20 all": 31.0}
    later = scores | {"step": 30, "knn@20 all": 29.5}
    warned = {"kind": "warning", "step": 30, "epoch": 3, "seconds": 60, "text": "slow: a step takes long"}
    found = write(tmp_path, START, report(10), report(20), scores, report(30), later, warned)
    drawn = text(found)
    for part in (
        "running",
        "30.0%",
        "2 min 20 s to go",
        "30 of 100",
        "29.5 %, best 31.0 %",
        "! slow: a step",
        "clever vit",
    ):
        assert part in drawn
    assert "120" in drawn  # images/s of the recent reports


def test_what_became_of_a_run(tmp_path):
    found = write(tmp_path, START, report(50))
    assert state(found, found.modified)[0] == "running"
    assert state(found, found.modified + 3600)[0] == "silent for 1 h 00 min"
    found = write(tmp_path, report(100))
    assert state(found, found.modified + 3600)[0] == "finished"
    (tmp_path / "not_finite_step_50.json").write_text("{}")
    found = write(tmp_path, START, report(50, loss=None), mode="w")
    assert state(found, found.modified)[0] == "stopped: not finite step 50"
    assert "not finite" in text(found)


def test_a_log_is_read_on_from_where_it_ended_and_anew_where_it_was_rewritten(tmp_path):
    found = write(tmp_path, START, report(10))
    with (tmp_path / LOG).open("a") as file:
        file.write(json.dumps(report(20)) + "\n" + '{"kind": "train", "st')  # being written
    found.refresh()
    assert [r["step"] for r in found.reports] == [10, 20]
    with (tmp_path / LOG).open("a") as file:
        file.write('ep": 3}\nno JSON\n{"kind": "new"}\n' + json.dumps(report(40)) + "\n")
    found.refresh()
    assert [r["step"] for r in found.reports] == [10, 20, 3, 40]
    write(tmp_path, START, report(5), mode="w")  # resumed from an earlier step
    found.refresh()
    assert [r["step"] for r in found.reports] == [5]


def test_the_command_draws_once_where_there_is_no_terminal(tmp_path, capsys):
    (tmp_path / "b").mkdir()
    write(tmp_path, START, report(10))
    write(tmp_path / "b", START)
    assert main(["watch", str(tmp_path), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert "10 of 100" in out
    assert "no report yet" in out
    assert main(["watch", str(tmp_path), str(tmp_path / "none"), "--once"]) == 2
    assert "none holds no metrics.jsonl" in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "--every", "0"]) == 2
    assert "seconds above 0" in capsys.readouterr().err
