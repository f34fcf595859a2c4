"""`clever-fast evaluate` as a user meets it: files that agree with one another, and one line for wrong input."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from clever_fast import checkpoint
from clever_fast.accelerator import Accelerator
from clever_fast.cli import main
from clever_fast.encoders.encoder import load_encoder
from clever_fast.evaluate.protocol import PROTOCOLS
from clever_fast.methods import METHODS
from clever_fast.options import Execution
from clever_fast.train_state import TrainState
from tests.recipes import tiny

HEADS = ["--epochs", "2", "--batch_size", "8", "--lrs", "[0.1,1]", "--repetitions", "2"]
WHOLE = ["--epochs", "2", "--batch_size", "4", "--tests", "2"]
COMMANDS = {
    "linear": [*HEADS, "--perturbations", "[Ro,CJ+Flip]"],
    "robustness": [*HEADS, "--perturbations", "[ET]", "--neighbours", "3"],
    "rotation": HEADS,
    "finetune": [*WHOLE, "--parts", "[IR,all]"],
    "semi": [*WHOLE, "--shares", "[0.25,0.5]"],
    "knn": ["--labels", "[2,8]", "--neighbours", "[1,3]", "--parts", "[all,IR]"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, images, small) -> Path:
    from clever_fast.options import Execution, Run
    from clever_fast.train import train

    folder = tmp_path_factory.mktemp("run")
    train(small(), Execution(device="cpu", precision="fp32"), Run(data=images, folder=folder, stop_after=1))
    return folder


@pytest.mark.parametrize("protocol", COMMANDS)
def test_json_csv_markdown_and_figure_say_the_same(protocol, run, images, tmp_path, capsys):
    words = ["evaluate", protocol, "--run", run, "--data", images, "--out", tmp_path, *COMMANDS[protocol]]
    assert main(list(map(str, words))) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / f"{protocol}.json").read_text())
    with (tmp_path / f"{protocol}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in result["rows"]]
    assert (result["bank"], result["queries"], result["classes"]) == (24, 12, 3)
    page = (tmp_path / f"{protocol}.md").read_text()
    for row in result["rows"]:
        if row.get("shown", True):
            assert f"{row['accuracy']:.2f}" in page
            assert f"{row['accuracy']:.2f}" in printed
    assert (tmp_path / f"{protocol}.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {f"{protocol}.{kind}" for kind in ("json", "csv", "md", "png")}


def test_the_released_protocol_is_the_default_and_what_was_used_is_recorded(run, images, tmp_path):
    def assert_used(words: str, used: dict, written: dict | None = None) -> None:
        places = ["--run", run, "--data", images, "--out", tmp_path]
        protocol, *options = words.split()
        assert main(list(map(str, ["evaluate", protocol, *places, *options]))) == 0
        found = json.loads((tmp_path / f"{protocol}.json").read_text())
        assert {key: found[key] for key in used} == used
        for key, value in (written or {}).items():
            assert {row[key] for row in found["rows"]} == {value}

    few = "--epochs 2 --perturbations [Ro] --repetitions 1"
    used = {"protocol": "dino", "lrs": [0.001], "report": "best_epoch", "batch_size": 256, "interpolation": "bilinear"}
    assert_used(f"linear {few}", used)
    used = {"protocol": "simsiam", "lrs": [30.0], "report": "last", "interpolation": "bicubic"}
    assert_used(f"linear {few} --protocol simsiam --report last --interpolation bicubic", used, {"epoch": 2})
    six = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]
    assert_used(f"robustness {few} --classifiers [linear]", {"lrs": six, "report": "last"}, {"epoch": 2})
    used = {"lr": 30.0, "backbone_lr": 0.03, "batch_size": 32, "tests": 2, "report": "best_epoch"}
    assert_used("finetune --epochs 2 --protocol simsiam", used)
    used = {"lr": 3.0, "backbone_lr": 0.03, "tests": 1}
    assert_used("semi --epochs 2 --protocol simsiam --shares [0.25] --report last --tests 1", used)
    used = {"protocol": "dino", "lr": 0.001, "backbone_lr": 0.001, "batch_size": 256}
    assert_used("finetune --epochs 1", used)


@pytest.mark.parametrize(("method", "protocol"), [("dino", "dino"), ("clever", "dino"), ("ddcl", "simsiam")])
def test_a_run_s_method_chooses_the_protocol(method, protocol, tmp_path):
    recipe = tiny(method)
    trained = TrainState(recipe, Accelerator.from_execution(Execution(device="cpu")))
    checkpoint.save(tmp_path, checkpoint.content(trained.state_dict(), recipe=recipe, data={}, step=0, epoch=0))
    assert load_encoder(tmp_path).protocol == protocol
    assert METHODS[method].protocol == protocol
    assert PROTOCOLS[protocol].name == protocol


def error_line(capsys, *words) -> str:
    assert main(["evaluate", *map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("clever-fast: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["linear", "--perturbations", "[CJ,CJ+Rot]"], "no perturbation is called 'CJ+Rot'; did you mean CJ+Ro or"),
        (["robustness", "--perturbations", "[fog]"], "there are Orig, CJ,"),
        (["linear", "--parts", "[all,XX]"], "no part 'XX'; there is all, IR, EF"),
        (["finetune", "--parts", "[XX]"], "no part 'XX'"),
        (["linear", "--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["rotation", "--repetitions", "0"], "repetitions is 0; it must be at least 1"),
        (["finetune", "--lr", "0"], "lr is 0.0; it must be above 0"),
        (["robustness", "--neighbours", "25"], "24 labelled images cannot take k = [25]"),
        (["robustness", "--classifiers", "[svm]"], "svm"),
        (["knn", "--neighbours", "[25]"], "24 labelled images cannot take k = [25]"),
        (["knn", "--labels", "[1,0]"], "0 labelled images a class"),
        (["semi"], "0.01 of the 8 images of class bars is none"),
        (["semi", "--lists", "[nothing.txt]"], "cannot read the list nothing.txt"),
        (["linear", "--dataset", "flowers102"], "unpack 102flowers.tgz and imagelabels.mat and setid.mat"),
        (["linear", "--backbone", "resnet18"], "--backbone resnet18 belongs to --weights"),
        (["linear", "--weights", "some.pth"], "either --run RUN or --weights FILE"),
    ],
)
def test_wrong_input_gets_one_line(words, message, run, images, capsys):
    assert message in error_line(capsys, words[0], "--run", run, "--data", images, *words[1:])


def test_data_that_does_not_fit(run, images, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    shutil.rmtree(data / "val" / "discs")
    assert "different classes, discs" in error_line(capsys, "linear", "--run", run, "--data", data)
    assert "no val/ or test/" in error_line(capsys, "rotation", "--run", run, "--data", data / "train")
    shutil.rmtree(data / "val")
    assert "has train, but no val or test" in error_line(capsys, "robustness", "--run", run, "--data", data)
    shutil.copytree(images, tmp_path / "loose")
    for path in sorted((tmp_path / "loose" / "train").glob("*/*.jpg")):
        path.rename(tmp_path / "loose" / f"{path.parent.name}{path.name}")
    shutil.rmtree(tmp_path / "loose" / "train")
    shutil.rmtree(tmp_path / "loose" / "val")
    assert "images but no class folders" in error_line(capsys, "linear", "--run", run, "--data", tmp_path / "loose")


def test_one_image_a_class(run, images, tmp_path, capsys):
    for split in ("train", "val"):
        for folder in (images / split).iterdir():
            if not folder.name.startswith("."):
                (tmp_path / split / folder.name).mkdir(parents=True)
                shutil.copy(folder / "0.jpg", tmp_path / split / folder.name)
    places = ["--run", run, "--data", tmp_path, "--out", tmp_path / "out"]
    assert main(list(map(str, ["evaluate", "linear", *places, "--epochs", "1", "--perturbations", "[Ro]"]))) == 0
    assert "of the 1 images of class bars is none" in error_line(capsys, "semi", *places)
    assert "3 labelled images cannot take k = [20]" in error_line(capsys, "robustness", *places)
    assert main(list(map(str, ["evaluate", "knn", *places]))) == 0
    assert {row["k"] for row in json.loads((tmp_path / "out/knn.json").read_text())["rows"]} == {3}


def test_a_checkpoint_of_another_architecture(run, images, tmp_path, capsys):
    state = checkpoint.load(run / checkpoint.NEWEST)
    state["recipe"]["backbone"] = "resnet18"
    torch.save(state, tmp_path / checkpoint.NEWEST)
    said = error_line(capsys, "linear", "--run", tmp_path, "--data", images)
    assert "another architecture than its recipe's resnet18" in said
    assert "more" in said


def test_a_folder_that_cannot_be_written(run, images, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert f"cannot write to {out}" in error_line(capsys, "linear", "--run", run, "--data", images, "--out", out)
