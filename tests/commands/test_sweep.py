"""`clever-fast sweep`: a grid checked before its first run, runs that fail and are tried again, tables by hand."""

import csv
import json

import pytest
import yaml

from clever_fast.cli import main
from clever_fast.errors import UserError
from clever_fast.sweeps import grid, table, workers

RECIPE = "clever_resnet10_cifar10"


@pytest.fixture
def planned(tmp_path):
    """The trials of a grid."""

    def plan(fields, *overrides, **content):
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump({"recipe": RECIPE, "grid": fields} | content))
        return grid.trials(grid.read(str(file)), tmp_path / "data", tmp_path / "out", overrides)

    return plan


def test_every_combination_is_a_run_seed_by_seed(planned):
    trials = planned({"method.preg_weight": [0, "1e-3"], "policy": ["baug", "caug"], "seed": [3, 4]}, set={"epochs": 7})
    assert [t.name for t in trials[:3]] == [
        "preg_weight=0.0,policy=baug,seed=3",
        "preg_weight=0.0,policy=caug,seed=3",
        "preg_weight=0.001,policy=baug,seed=3",
    ]
    assert len(trials) == 8
    last = trials[-1].recipe
    assert (last.method.preg_weight, last.policy.name, last.seed, last.epochs) == (0.001, "caug", 4, 7)
    assert last.method.prototypes == 512  # the recipe's own


def test_options_override_what_the_sweep_sets_but_not_its_grid(planned):
    options = ["--recipe.epochs", "2", "--recipe.method.preg_weight=0.5"]
    (trial,) = planned({"method.preg_weight": [0.1]}, *options, set={"epochs": 7})
    assert (trial.recipe.epochs, trial.recipe.method.preg_weight) == (2, 0.1)


@pytest.mark.parametrize("name", grid.SWEEPS)
def test_ready_sweeps_hold_the_released_value(name, tmp_path):
    trials = grid.trials(grid.SWEEPS[name], tmp_path, tmp_path)
    released = {"separation_ratio": 0.8, "ef_prototypes": 65536, "preg_weight": 0.001}[name]
    assert sum(trial.point[f"method.{name}"] == released for trial in trials) == 3


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"method.separation_ratoi": [0.5]}, "did you mean --recipe.method.separation_ratio"),
        ({"method.preg_weight": ["big"]}, "preg_weight.*big"),
        ({"seed": [1.5]}, "seed.*1.5"),
        ({"policy": ["daug"]}, "daug"),
        ({"method.separation_ratio": [0.8, 1.0]}, "separation_ratio is 1.0; it must be above 0 and below 1"),
        ({"epochs": [0]}, "epochs is 0"),
        ({"method.preg_weight": [0.001, "1e-3"]}, "preg_weight=0.001 twice"),
        ({"base": [RECIPE]}, "name the recipe"),
        ({"epochs": []}, r"epochs has \[\]"),
        ({"epochs": 3}, "epochs has 3"),
        ({}, "no grid"),
    ],
)
def test_what_is_wrong_with_a_grid_is_said_before_the_first_run(planned, grid, words):
    with pytest.raises(UserError, match=words):
        planned(grid)


def test_files_that_are_no_sweep_are_named(planned, tmp_path, capsys):
    with pytest.raises(UserError, match="the key 'gird'"):
        planned({"epochs": [1]}, gird={})
    with pytest.raises(UserError, match="epochs stands in both"):
        planned({"epochs": [1]}, set={"epochs": 2})
    places = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["sweep", "ratio", *places]) == 2
    assert "the ready ones are separation_ratio" in capsys.readouterr().err
    assert main(["sweep", "preg_weight", *places, "--devices", "0,0"]) == 2
    assert "--devices 0,0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_are_scored_once_and_what_failed_is_tried_again(images, tmp_path, capsys):
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    settings = {"recipe": RECIPE, "set": {"epochs": 1}, "grid": {"batch_size": [8, 1000]}}
    file.write_text(yaml.safe_dump(settings))
    words = ["sweep", str(file), "--data", str(images), "--out", str(out), "--execution.threads", "1", "--labels", "7"]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "batch_size=1000: failed: " in said
    assert "1 of 2 runs failed: batch_size=1000" in said
    (result,) = json.loads((out / "scores.json").read_text())
    assert result["point"] == {"batch_size": 8}
    assert set(result["accuracy"]) == {"trained all", "trained IR", "trained EF", "untrained all"}
    assert (result["images"], result["bank"], result["queries"], result["epochs"]) == (24, 21, 12, 1)
    (row,) = csv.DictReader((out / "scores.csv").open())
    assert float(row["trained all"]) == result["accuracy"]["trained all"]
    assert (out / "plot.png").read_bytes()[1:4] == b"PNG"

    score = out / "runs" / "batch_size=8" / grid.SCORE
    before = score.stat().st_mtime_ns
    file.write_text(yaml.safe_dump(settings | {"grid": {"batch_size": [8]}}))
    assert main(words) == 0
    assert "1 of them done" in capsys.readouterr().out
    assert score.stat().st_mtime_ns == before
    assert main([*words, "--recipe.epochs", "2"]) == 2
    assert "holds a run of another epochs" in capsys.readouterr().err
    assert main([*words, "--labels", "8"]) == 2
    assert "holds a run of another labels" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "few"), "--labels", "1"]) == 2
    assert "k-NN among 3 labelled images" in capsys.readouterr().err


def test_a_run_that_was_told_to_stop_when_it_was_scored_is_done(planned):
    (trial,) = planned({"epochs": [1]})
    assert workers._outcome(trial, -15, stopping=True).line == "epochs=1: stopped"
    trial.folder.mkdir(parents=True)
    (trial.folder / grid.SCORE).write_text(json.dumps({"accuracy": {"trained all": 31.0}}))
    assert workers._outcome(trial, -15, stopping=True).line == "epochs=1: 31.00 %"


def record(accuracy: float, **point) -> dict:
    return {
        "point": point,
        "accuracy": {"trained all": accuracy, "untrained all": 10.0},
        "k": 20,
        "bank": 9,
        "queries": 3,
    }


def test_a_table_of_means_and_spread():
    records = [record(v, ratio=r, seed=s) for r, s, v in ((0.8, 0, 31.0), (0.5, 0, 20.0), (0.8, 1, 33.0))]
    lines = table.table(records).splitlines()
    assert lines[0] == "| ratio | seeds | trained all | untrained all |"
    assert lines[2] == "| 0.5 | 1 | 20.00 | 10.00 |"
    assert lines[3] == "| 0.8 | 2 | 32.00 ± 1.41 | 10.00 ± 0.00 |"


def test_a_plot_shows_means_and_deviations_at_their_values():
    from matplotlib.figure import Figure

    grid = [(w, p) for w in (0.0, 0.1) for p in ("baug", "caug")]
    records = [record(10 * i + s, weight=w, policy=p, seed=s) for i, (w, p) in enumerate(grid) for s in (1, 3)]
    axis = Figure().subplots()
    table.panel(axis, records)
    drawn = {c.get_label(): c.lines[0].get_ydata().tolist() for c in axis.containers}
    assert drawn == {"policy baug": [2, 22], "policy caug": [12, 32], "untrained all": [10, 10]}
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0.0", "0.1"]
