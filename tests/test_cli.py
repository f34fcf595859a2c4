"""The command line as a user meets it: what it understands, and one line and exit code 2 for what it cannot do."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from clever_fast import checkpoint
from clever_fast.cli import COMMANDS, main
from clever_fast.command_line import Parser, _is_bare_list, parse_pretrain
from clever_fast.errors import UserError
from clever_fast.monitoring import metrics
from clever_fast.options import EXECUTIONS
from clever_fast.performance import recipe_costs
from clever_fast.recipes import CATALOGUE, RECIPES

PLACES = ["--data", "d", "--run", "r"]
# The demo's recipe, cut down to the size of the test's images.
QUICK = ["--recipe", "clever_demo", "--recipe.batch_size", "8"]
QUICK += ["--recipe.global_size", "32", "--recipe.local_size", "16"]
QUICK += ["--execution.precision", "fp32", "--execution.device", "cpu"]


def error_line(capsys, words: list) -> str:
    """Run a command that must fail with exit code 2 and one line on stderr."""
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    assert captured.err.startswith("clever-fast: ")
    assert captured.err.count("\n") == 1
    return captured.err


def pretrain(capsys, data, run, *more) -> str:
    return error_line(capsys, ["pretrain", *QUICK, "--data", data, "--run", run, *more])


def test_options_override_the_recipe_that_is_named():
    words = ["--recipe=clever_vits16_in100", "--recipe.epochs", "3", "--recipe.policy", "baug"]
    recipe, execution, run = parse_pretrain(
        [*words, "--recipe.method.teacher_temp", "0.07", "--execution.precision", "bf16", "--keep=4", *PLACES]
    )
    base = RECIPES["clever_vits16_in100"]
    assert (recipe.epochs, recipe.policy.name, recipe.method.teacher_temp) == (3, "baug", 0.07)
    assert (recipe.backbone, recipe.batch_size, recipe.method.prototypes) == (base.backbone, 512, 65536)
    assert execution.precision == "bf16"
    assert (run.data, run.folder, run.keep) == (Path("d"), Path("r"), 4)


def test_an_execution_is_chosen_by_name_and_overridden(capsys):
    words = ["--recipe", "dino_vitt16_in1k", *PLACES]
    assert parse_pretrain([*words, "--execution", "plain"])[1] == EXECUTIONS["plain"]
    changed = parse_pretrain([*words, "--execution=plain", "--execution.kernels", "fused"])[1]
    assert changed == replace(EXECUTIONS["plain"], kernels="fused")
    with pytest.raises(UserError, match="'quick'; there are fast, plain"):
        parse_pretrain([*words, "--execution", "quick"])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_the_command_line(name):
    recipe, _, _ = parse_pretrain(["--recipe", name, *PLACES])
    assert recipe == RECIPES[name]


def test_print_config_is_read_back_by_config_and_by_recipe(tmp_path, capsys):
    words = ["--recipe", "dino_vitt16_in1k", "--recipe.seed", "5", "--execution.threads", "3", "--log_every", "7"]
    with pytest.raises(SystemExit) as end:
        parse_pretrain([*words, *PLACES, "--print_config"])
    assert end.value.code == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    printed = parse_pretrain([*words, *PLACES])
    assert parse_pretrain(["--config", str(path)]) == printed
    assert parse_pretrain(["--recipe", str(path), *PLACES])[0] == printed[0]
    assert parse_pretrain(["--config", str(path), "--recipe.seed", "6"])[0].seed == 6


def test_a_recipe_file_names_what_it_builds_on(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "clever_resnet18_in100", "epochs": 7, "method": {"preg_weight": 0.01}}))
    recipe, *_ = parse_pretrain(["--recipe", str(path), *PLACES])
    assert (recipe.epochs, recipe.method.preg_weight, recipe.backbone.name) == (7, 0.01, "resnet18")
    path.write_text("recipe: clever_resnet18_in100\ndata: d\nrun: r\n")
    assert parse_pretrain(["--config", str(path)])[0] == RECIPES["clever_resnet18_in100"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "clever_vits16_in10"], "did you mean clever_vits16_in100"),
        (["--recipe", "nothing_like_it"], "`clever-fast recipes` lists them all"),
        ([], "--recipe NAME or FILE is missing"),
        (["--recipe", "clever_demo", "--recipe.epoch", "3"], "--recipe.epoch 3; did you mean --recipe.epochs"),
        (["--recipe", "clever_demo", "--recipe.epochs", "three"], "three"),
        (["--recipe", "clever_demo", "--recipe.epochs", "0"], "recipe.epochs is 0"),
        (["--recipe", "clever_demo", "--recipe.drop_path", "1.5"], "recipe.drop_path is 1.5"),
        (["--recipe", "clever_demo", "--recipe.policy", "caugplus"], "caugplus"),
        (["--recipe", "clever_vits16_in100", "--recipe.policy", "moco_caug"], "moco_caug makes no local crops"),
        (["--recipe", "ddcl_resnet50_in100", "--recipe.local_crops", "4"], "ddcl takes no local crops"),
        (["--recipe", "simsiam_resnet50_in100", "--recipe.method.preg_weight", "1"], "--recipe.method.preg_weight"),
        (["--recipe", "dino_vits16_in1k", "--recipe.method.preg_weight", "1"], "--recipe.method.preg_weight"),
        (["--recipe", "clever_demo", "--log_every", "0"], "log_every is 0"),
        (["--recipe", "no_such_file.yaml"], "no_such_file.yaml"),
        (["--recipe", "without_base.yaml"], "without_base.yaml does not say which recipe it changes"),
        (["--recipe", "clever_demo", "--config", "no_such_file.yaml"], "no_such_file.yaml"),
    ],
)
def test_wrong_options_get_one_line(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "without_base.yaml").write_text("epochs: 3\n")
    assert message in error_line(capsys, ["pretrain", *words, *PLACES])


def test_an_unknown_command_lists_the_known_ones(capsys):
    assert "evaluate knn" in error_line(capsys, ["pretrian"])


def test_no_such_folder(capsys, tmp_path):
    assert str(tmp_path / "nowhere") in pretrain(capsys, tmp_path / "nowhere", tmp_path / "run")


def test_a_folder_without_class_folders_or_images(capsys, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    assert "class" in pretrain(capsys, data, tmp_path / "run")
    (data / "cat").mkdir()
    assert "image" in pretrain(capsys, data, tmp_path / "run")


def test_a_run_inside_its_data_is_refused_before_anything_is_written(capsys, images, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(images / "train", data)
    assert "lies inside the data" in pretrain(capsys, data, data / "run")
    assert not (data / "run").exists()


def test_all_images_unreadable(capsys, tmp_path):
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "a.jpg").write_text("<html>")
    assert "cat/a.jpg" in pretrain(capsys, tmp_path / "data", tmp_path / "run")


def test_a_batch_larger_than_the_data(capsys, images, tmp_path):
    message = pretrain(capsys, images, tmp_path, "--recipe.batch_size", "4096")
    assert "4096" in message
    assert "24" in message


def test_a_run_of_another_recipe_is_refused_and_kept(capsys, images, tmp_path):
    words = ["pretrain", *QUICK, "--data", str(images), "--run", str(tmp_path), "--stop_after", "1"]
    assert main(words) == 0
    before = (tmp_path / checkpoint.NEWEST).read_bytes(), metrics.read(tmp_path / metrics.LOG)
    capsys.readouterr()
    assert "recipe.seed (saved 0, now 1)" in pretrain(capsys, images, tmp_path, "--recipe.seed", "1")
    assert before == ((tmp_path / checkpoint.NEWEST).read_bytes(), metrics.read(tmp_path / metrics.LOG))


def test_a_run_folder_that_cannot_be_written(capsys, images, tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in pretrain(capsys, images, tmp_path / "file" / "run")


def test_a_full_disk_is_noticed_before_the_first_step(capsys, images, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=2**20))
    assert "MiB free" in pretrain(capsys, images, tmp_path / "run")


def test_a_gpu_that_is_not_there(capsys, images, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--execution.device cpu" in pretrain(capsys, images, tmp_path, "--execution.device", "cuda")


def test_dali_not_installed_names_the_extra(images, tmp_path):
    """In a new process, where nvidia.dali and nvImageCodec cannot be imported."""
    blocker = "import sys; sys.modules['nvidia.dali'] = sys.modules['nvidia.nvimgcodec'] = None; "
    code = f"{blocker}from clever_fast.cli import main; sys.exit(main(sys.argv[1:]))"
    data = tmp_path / "data"
    shutil.copytree(images, data, ignore=shutil.ignore_patterns(".clever_fast"))
    words = ["pretrain", *QUICK, "--data", str(data), "--run", str(tmp_path / "run")]
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert "clever_fast[cuda12]" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_classes_of_train_and_val_must_be_the_same(capsys, images, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "val" / "discs")
    message = pretrain(capsys, tmp_path / "data", tmp_path / "run", "--knn_every", "1")
    assert "different classes, discs" in message


def test_evaluation_of_what_is_no_run(capsys, images, tmp_path):
    assert "checkpoint.pth" in error_line(capsys, ["evaluate", "knn", "--run", tmp_path, "--data", images])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    assert f"usage: clever-fast {command}" in capsys.readouterr().out


def test_the_console_script_works():
    script = Path(sys.executable).with_name("clever-fast")
    assert os.access(script, os.X_OK)
    shown = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == "0.1.0"


def test_recipes_are_listed_without_torch():
    code = "import sys; from clever_fast.cli import main; main(['recipes']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_the_kept_table_is_that_of_the_catalogue():
    kept = json.loads(recipe_costs.KEPT.read_text())
    expected = [recipe_costs.row(name, entry) for name, entry in CATALOGUE.items()]
    assert kept == expected, "python -m clever_fast.performance.recipe_costs"


def test_recipes_are_listed_with_their_cost(capsys):
    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in RECIPES)
    line = next(line.split() for line in shown.splitlines() if line.startswith("clever_vits16_in100 "))
    assert line[-6] == "200"  # epochs of the published table
    assert float(line[-5]) == pytest.approx(115, rel=0.01)  # GFLOP, counted by hand
    assert line[-3:] == ["75.7", "/", "73.6"]


def actions_of(command: str, capsys) -> list:
    """The options of a command, as its parser knows them when it prints its help."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "print_help", lambda parser, file=None: found.extend(parser._actions))
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_described(command, capsys):
    """A recipe's fields are options as well; `==SUPPRESS==` hides one."""
    found = actions_of(command, capsys)
    assert len(found) > 1
    empty = [action.dest for action in found if not (action.help or "").strip() and action.option_strings]
    assert not empty
    odd = [action.dest for action in found if "<function" in str(action.help) or " at 0x" in str(action.help)]
    assert not odd


@pytest.mark.parametrize(
    ("given", "hint", "bare"),
    [
        ("IR", tuple[str, ...] | None, True),
        ("[IR]", tuple[str, ...] | None, False),
        ("0.1,1", tuple[float, ...] | None, True),
        ("null", tuple[str, ...] | None, False),
        ("5", int | tuple[int, ...] | None, False),
        ("5,50", int | tuple[int, ...] | None, True),
        ("a,b", str | None, False),
    ],
)
def test_a_list_needs_no_brackets(given, hint, bare):
    assert _is_bare_list(given, hint) == bare


@pytest.mark.parametrize("written", ["tensorboard,wandb", "[tensorboard,wandb]", "[tensorboard, wandb]"])
def test_a_list_is_read_with_and_without_brackets(written):
    for words in (["--loggers", written], [f"--loggers={written}"]):
        assert parse_pretrain(["--recipe", "clever_demo", *PLACES, *words])[2].loggers == ("tensorboard", "wandb")


def test_names_that_are_not_utf8_come_as_they_are():
    name = os.fsdecode(b"d\xe4ta")
    assert parse_pretrain(["--recipe", "clever_demo", "--data", name, "--run", "r"])[2].data == Path(name)
