"""`clever-fast bench` from the command line, at a size that takes seconds."""

import pytest

from clever_fast.benchmarks import scan
from clever_fast.benchmarks.records import read
from clever_fast.cli import main
from clever_fast.recipes import RECIPES

TINY = ["--batch", "4", "--rounds", "2", "--seconds", "0.01"]


@pytest.fixture(autouse=True)
def tiny(small, monkeypatch):
    """A recipe that is small even for a CPU, under a name of its own."""
    for method in ("clever", "dino"):
        monkeypatch.setitem(RECIPES, f"{method}_tiny_in100", small(method))


def bench(*words) -> int:
    return main(["bench", *map(str, words)])


def test_the_three_clocks_of_a_real_epoch(images, tmp_path, capsys):
    out = tmp_path / "records"
    assert bench("epoch", "--data", images, "--recipe", "clever_tiny_in100", *TINY, "--records", out) == 0
    told = capsys.readouterr().out
    assert "timed on the CPU, at small sizes" in told
    assert "Estimates" in told
    assert "not measurements" in told
    rows = {row["benchmark"]: row for row in read(out)}
    assert rows.keys() == {"loader", "step", "epoch"}
    epoch, rates = rows["epoch"], {name: row["images_per_second"] for name, row in rows.items()}
    assert epoch["images"] == 24  # six steps of four: the whole folder
    assert epoch["data"] == {"images": 24, "size": epoch["data"]["size"], "origin": "a folder"}
    assert epoch["changes"] == {"batch_size": 4}
    assert epoch["settings"]["kernels"] == "fused"
    assert epoch["tflops"] == pytest.approx(rates["epoch"]["median"] * epoch["gflop_per_image"] / 1e3)
    assert epoch["share_of_peak"] == pytest.approx(epoch["tflops"] / epoch["ceilings"]["product_tflops"])
    assert 0 < epoch["data_wait"] < 1
    assert rows["step"]["data_wait"] < 0.05
    assert all(epoch["phases_ms"][name] > 0 for name in ("data", "teacher", "student", "backward", "optimizer", "ema"))
    assert bench("report", "--records", out) == 0
    assert "three clocks" in (out / "report.html").read_text()


def test_executions_side_by_side_and_compared(tmp_path, capsys):
    recipes = "clever_tiny_in100,dino_tiny_in100"
    assert bench("step", "--recipes", recipes, *TINY, "--records", tmp_path) == 0
    rows = read(tmp_path)
    assert [(row["recipe"], row["execution"]) for row in rows] == [
        (recipe, execution) for recipe in recipes.split(",") for execution in ("fast", "plain")
    ]
    capsys.readouterr()
    assert bench("compare", "plain", "fast", "--records", tmp_path) == 0
    ratio = rows[0]["images_per_second"]["median"] / rows[1]["images_per_second"]["median"]
    assert f"{ratio:.2f}" in capsys.readouterr().out


def test_the_loader_alone_on_generated_images(tmp_path, capsys):
    assert bench("loader", "--recipe", "clever_tiny_in100", *TINY, "--records", tmp_path) == 0
    (row,) = read(tmp_path)
    assert row["data"] == {"images": 32, "size": "500x375", "origin": "generated photographs"}
    assert row["images_per_second"]["rounds"] == 2
    assert "tflops" not in row


def test_the_scan_is_timed_against_a_copy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scan, "STAGES", ((8, 6),))
    assert bench("ops", "--rounds", "1", "--images", "1", "--records", tmp_path) == 0
    assert [row["benchmark"] for row in read(tmp_path)] == ["selective_scan", "cross_scan"]
    assert "of a copy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "bench epoch"),
        (["fast"], "the commands are bench all"),
        (["step", "--recipes", "clever_vits16_in10"], "did you mean clever_vits16_in100"),
        (["step", "--recipes", "clever_tiny_in100", "--executions", "quick"], "no execution is called 'quick'"),
        (["step", "--batch", "0"], "--batch 0 is too small"),
        (["epoch", "--max_steps", "0"], "--max_steps 0 is too small"),
        (["epoch", "--recipe", "clever_tiny_in100", "--data", "no_such_folder"], "no_such_folder"),
        (["report", "--records", "no_such_folder"], "no records at no_such_folder"),
        (["compare", "a", "b", "--records", "no_such_folder"], "no records at no_such_folder"),
    ],
)
def test_wrong_words_get_one_line(words, message, capsys):
    assert bench(*words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
