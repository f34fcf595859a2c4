"""The demo from start to end, cut short: what it leaves, and that its page says what was measured."""

import base64
import json
import re
import signal

from clever_fast import checkpoint
from clever_fast.cli import main
from clever_fast.commands import demo
from clever_fast.monitoring import metrics


def test_demo_leaves_pictures_and_a_page_with_the_measured_score(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "IMAGES", demo.IMAGES | {"per_class": 13, "val_per_class": 3, "size": 32})
    assert main(["demo", "--out", str(tmp_path), "--epochs", "2"]) == 0
    state = checkpoint.load(tmp_path / "run" / checkpoint.NEWEST)
    assert state["step"] == 4  # 130 images, batches of 64
    steps = [r["step"] for r in metrics.read(tmp_path / "run" / metrics.LOG) if r["kind"] == "train"]
    assert steps == [3, 4]  # stopped in the middle of the second epoch, and resumed
    page = (tmp_path / "report.html").read_text()
    rows = json.loads((tmp_path / "run" / "knn.json").read_text())["rows"]
    (score,) = (row["accuracy"] for row in rows if (row["features"], row["k"]) == ("trained all", 20))
    assert f"{score:.1f} %" in page
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert pictures == [(tmp_path / "run" / "curves.png").read_bytes(), (tmp_path / "preview.png").read_bytes()]
    assert (tmp_path / "curves.png").read_bytes() == pictures[0]


def test_demo_does_not_overwrite_what_is_no_demo(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "was not made by a demo" in capsys.readouterr().err
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"


def test_demo_does_not_overwrite_somebodys_run(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / metrics.LOG).write_text("")  # as every run has
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert (tmp_path / "run" / metrics.LOG).exists()


def test_demo_stops_where_it_is_told_to(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "IMAGES", demo.IMAGES | {"per_class": 13, "val_per_class": 3, "size": 32})
    trained = []

    def train(*arguments):
        trained.append(arguments)
        monkeypatch.setattr(demo, "stopped_by", lambda: signal.SIGINT)

    monkeypatch.setattr(demo, "train", train)
    assert main(["demo", "--out", str(tmp_path), "--epochs", "2"]) == 130
    assert len(trained) == 1
