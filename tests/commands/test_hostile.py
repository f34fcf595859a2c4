"""Hostile values through every option of every command: one line that names the option, exit code 2, nothing written.

Wrong types are refused by the parser, whatever else is given; numbers out of range by the command itself, which has
real images and a real run here, so that nothing else can be the reason.
"""

import math
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from clever_fast.cli import COMMANDS, main
from clever_fast.command_line import Parser
from clever_fast.options import Execution, Run
from clever_fast.train import train

TEXTS = (str, Path)  # of which anything is one, as far as a parser knows
MANY = {"pretrain", "profile"}  # options of a recipe and an execution, several dozen


def kinds_of(action) -> list:
    hint = getattr(action, "_typehint", None) or action.type
    return [hint] if get_origin(hint) in (None, Literal) else list(get_args(hint) or [hint])


def wrong_types(action) -> list[str]:
    """Values that no type of an option takes; none for options of free text."""
    kinds = kinds_of(action)
    flat = {arg for kind in kinds for arg in (get_args(kind) if get_origin(kind) in (tuple, list) else [kind])}
    if flat & set(TEXTS) or action.nargs == 0:
        return []
    if flat & {int, float}:
        return ["three", "{}", "1..5", "0x"]
    return ["no_such_value", "{}", "17.5"] if flat & {bool} or any(get_origin(k) is Literal for k in kinds) else []


def parsers(command: str, words: list[str]) -> list:
    """The parser of a command, caught where it would read the words."""
    caught = []

    class Caught(Exception):
        pass

    def catch(parser, *_, **__):
        caught.append(parser)
        raise Caught

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_args", catch)
        with pytest.raises(Caught):
            main([*command.split(), *words])
    return caught


def refused(capsys, command: str, words: list[str]) -> str:
    """The one line of a command that must refuse its words."""
    assert main([*command.split(), *map(str, words)]) == 2, words
    printed = capsys.readouterr()
    assert printed.err.startswith("clever-fast: "), words
    assert printed.err.count("\n") == 1, printed.err
    assert "Traceback" not in printed.err
    return printed.err


def least(command: str) -> list[str]:
    """What makes a command reach its parser."""
    if command in MANY:
        return ["--recipe", "clever_demo"]
    return ["x"] if command == "recipes" else []


def check_types(command: str, capsys, tmp_path, monkeypatch, count: int | None) -> None:
    monkeypatch.chdir(tmp_path)
    tried = 0
    (parser,) = parsers(command, least(command))
    for action in parser._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        if not names or names[0] in ("--help", "--config", "--print_config"):
            continue
        for value in wrong_types(action)[:count]:
            line = refused(capsys, command, [*least(command), f"{names[0]}={value}"])
            assert names[0].lstrip("-") in line or value in line, line
            tried += 1
    assert tried or command in ("recipes", "export", "convert cifar10", "bench compare", "bench report")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in MANY])
def test_no_option_takes_a_value_of_another_type(command, capsys, tmp_path, monkeypatch):
    check_types(command, capsys, tmp_path, monkeypatch, 1)


@pytest.mark.full
@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_takes_any_value_of_another_type(command, capsys, tmp_path, monkeypatch):
    check_types(command, capsys, tmp_path, monkeypatch, None)


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_options_are_named(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--no_such_option" in refused(capsys, command, [*least(command)[:2], "--no_such_option", "1"])
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def run(images, small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(small(), Execution(device="cpu", precision="fp32"), Run(data=images, folder=folder, stop_after=1))
    return folder


OUT_OF_RANGE = [  # a command, its options, and what its line names
    *(("evaluate knn", f"--neighbours {value}", "k") for value in ("0", "-1", "999")),
    *(("evaluate knn", f"--labels {value}", "labelled images a class") for value in ("0", "-3")),
    ("evaluate knn", "--parts none", "none"),
    *(
        (f"evaluate {protocol}", f"--{name} {value}", name)
        for protocol in ("linear", "robustness", "rotation")
        for name, value in (
            ("epochs", 0),
            ("epochs", -1),
            ("batch_size", 0),
            ("repetitions", 0),
            ("lrs", 0),
            ("lrs", -1),
            ("lrs", ".nan"),
            ("seed", -1),
        )
    ),
    *(
        (f"evaluate {protocol}", f"--{name} {value}", name)
        for protocol in ("finetune", "semi")
        for name, value in (
            ("epochs", 0),
            ("batch_size", -8),
            ("lr", 0),
            ("lr", ".inf"),
            ("backbone_lr", -1),
            ("weight_decay", -1),
            ("tests", 0),
            ("seed", -5),
        )
    ),
    *(("evaluate semi", f"--shares {value}", "share") for value in ("0", "1.5", "-1", ".nan")),
    ("evaluate linear", "--perturbations Nothing", "Nothing"),
    ("evaluate robustness", "--neighbours 0", "k"),
    ("show pca", "--images 0", "images"),
    ("show pca", "--size 0", "size"),
    ("show neighbours", "--images -1", "images"),
    ("show neighbours", "--neighbours 0", "neighbours"),
    ("show neighbours", "--neighbours 24", "neighbours"),
]


@pytest.mark.parametrize(("command", "options", "named"), OUT_OF_RANGE, ids=lambda value: str(value).replace(" ", "_"))
def test_numbers_out_of_range_are_named(command, options, named, run, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = ["--out", tmp_path / "out"] if command.startswith("evaluate") else ["--out", tmp_path / "out.png"]
    words = ["--run", run, "--data", images, *out, *options.split()]
    assert named in refused(capsys, command, words)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/no/such"])
@pytest.mark.parametrize("command", ["evaluate knn", "show pca", "export"])
def test_places_that_cannot_be_written_are_named(command, place, run, images, capsys):
    words = ["--run", run] + (["--data", images] if command != "export" else [])
    out = place + {"show pca": ".png", "export": ".safetensors"}.get(command, "")
    assert place in refused(capsys, command, [*words, "--out", out])


def test_weights_that_are_not_finite_are_refused_by_name(run, images, tmp_path, capsys):
    import torch

    from clever_fast import checkpoint

    state = checkpoint.load(run / checkpoint.NEWEST)
    weights = {name.removeprefix("backbone."): t.clone() for name, t in state["teacher"].items() if "backbone" in name}
    name = next(name for name in weights if name.endswith("conv1.weight"))
    weights[name][0, 0, 0, 0] = math.nan
    torch.save(weights, tmp_path / "weights.pth")
    line = refused(capsys, "evaluate knn", ["--weights", tmp_path / "weights.pth", "--data", images])
    assert f"1 of {weights[name].numel():,} values of {name} are not finite" in line


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "module.module."]
)
def test_wrappers_come_off_in_any_order(prefix, run, images, tmp_path, capsys):
    import torch

    from clever_fast import checkpoint
    from clever_fast.encoders.encoder import load_encoder

    state = checkpoint.load(run / checkpoint.NEWEST)["teacher"]
    weights = {prefix + name.removeprefix("backbone."): t for name, t in state.items() if "backbone" in name}
    torch.save(weights, tmp_path / "weights.pth")
    found = load_encoder(tmp_path / "weights.pth").state_dict()
    for name, tensor in weights.items():
        assert torch.equal(found[f"network.{name.removeprefix(prefix)}"], tensor)


def test_results_are_kept_beside_newer_ones_and_folders_are_made(run, images, tmp_path, capsys):
    words = ["evaluate", "knn", "--run", run, "--data", images, "--out", tmp_path / "new" / "folder"]
    for number in range(3):
        assert main([*map(str, words), "--neighbours", str(number + 1)]) == 0
    folder = tmp_path / "new" / "folder"
    kept = {path.name for path in folder.glob("*.json")}
    assert kept == {"knn.json", "knn.1.json", "knn.2.json"}
    assert '"k": 1' in (folder / "knn.1.json").read_text()
    assert '"k": 3' in (folder / "knn.json").read_text()
    assert f"the earlier results are kept as {folder / 'knn.2.json'}" in capsys.readouterr().out
    assert main(["show", "pca", "--run", str(run), "--data", str(images), "--out", str(tmp_path / "a" / "b.png")]) == 0
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "c" / "d.safetensors")]) == 0
