"""Checkpoints: whole or not there, refused where they do not belong, and without a way to run code."""

import copy
import os
import pickle
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from clever_fast import checkpoint
from clever_fast.accelerator import Accelerator
from clever_fast.errors import UserError
from clever_fast.methods import METHODS
from clever_fast.models import BACKBONES
from clever_fast.models.vit import ViT
from clever_fast.options import Execution, Recipe
from clever_fast.pipelines.policies import BAUG
from clever_fast.train_state import TrainState
from tests.malicious import Malicious
from tests.recipes import siamese, small, tiny

DATA = {"images": 24, "classes": 3, "fingerprint": "abc"}


@pytest.fixture(scope="module")
def trained(small):
    return TrainState(small(), Accelerator.from_execution(Execution(device="cpu", precision="fp32")))


def state_of(trained, recipe, step=7):
    return checkpoint.content(trained.state_dict(), recipe=recipe, data=DATA, step=step, epoch=2)


def test_round_trip_and_conventional_keys(trained, small, tmp_path):
    path = checkpoint.save(tmp_path, state_of(trained, small()))
    plain = torch.load(path, weights_only=True)
    assert {"student", "teacher", "optimizer", "epoch", "center", "center2"} <= plain.keys()
    assert {"backbone.conv1.weight", "head.last_layer.weight_v", "head2.mlp.0.weight"} <= plain["student"].keys()
    other = TrainState(small(seed=1), Accelerator.from_execution(Execution(device="cpu", precision="fp32")))
    other.load_state_dict(checkpoint.load(path))
    for name, value in trained.method.state_dict().items():
        assert torch.equal(value, other.method.state_dict()[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_recipe_round_trip(method):
    recipe = replace(tiny(method), seed=3)
    assert Recipe.from_dict(recipe.as_dict()) == recipe


def test_missing_weights_are_an_error_that_names_them(trained, small, tmp_path):
    state = state_of(trained, small())
    del state["student"]["backbone.conv1.weight"]
    checkpoint.save(tmp_path, state)
    with pytest.raises(RuntimeError, match=r"student\.backbone\.conv1\.weight"):
        trained.load_state_dict(checkpoint.load(tmp_path / checkpoint.NEWEST))


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_ones_are_kept(trained, small, tmp_path, keep):
    for step in (5, 10, 15, 20):
        checkpoint.save(tmp_path, state_of(trained, small(), step), keep=keep)
    names = sorted(path.name for path in tmp_path.iterdir())
    older = [f"checkpoint-{step:09d}.pth" for step in (10, 15)] if keep == 3 else []
    assert names == [*older, "checkpoint.pth"]
    assert checkpoint.load(tmp_path / checkpoint.NEWEST)["step"] == 20
    assert [checkpoint.load(tmp_path / name)["step"] for name in older] == ([10, 15] if older else [])


@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_a_failing_disk_leaves_the_last_checkpoint(trained, small, tmp_path, monkeypatch, moment):
    checkpoint.save(tmp_path, state_of(trained, small(), 5))

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    owner, name = {"write": (torch, "save"), "fsync": (os, "fsync"), "rename": (os, "replace")}[moment]
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OSError, match=r"the disk of .* is full: No space left on device|No space left"):
        checkpoint.save(tmp_path, state_of(trained, small(), 10))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]
    assert checkpoint.load(tmp_path / checkpoint.NEWEST)["step"] == 5


def test_another_recipe_or_other_data_is_refused_naming_the_keys(trained, small, tmp_path):
    path = checkpoint.save(tmp_path, state_of(trained, small()))
    state = checkpoint.load(path)
    checkpoint.refuse_other(path, state, small(), DATA)
    with pytest.raises(UserError, match=r"recipe\.epochs \(saved 3, now 4\).*recipe\.policy \(.*now baug\)"):
        checkpoint.refuse_other(path, state, small(epochs=4, policy=BAUG), DATA)
    with pytest.raises(UserError, match=r"recipe\.method\.name \(saved clever, now dino\)"):
        checkpoint.refuse_other(path, state, small("dino"), DATA)
    with pytest.raises(UserError, match="trained on 24 readable images of 3 classes, now there are 23 "):
        checkpoint.refuse_other(path, state, small(), DATA | {"images": 23})


def as_first_saved(recipe: Recipe) -> dict:
    """A recipe's plain values without the options that the first checkpoints had not."""
    plain = recipe.as_dict()
    del plain["antialiased_positions"]
    method = {k: v for k, v in plain["method"].items() if k not in ("hidden", "train_projector_bias")}
    return plain | {"method": plain["method"] if recipe.method.name in ("dino", "clever") else method}


@pytest.mark.parametrize(
    ("recipe", "option"),
    [
        (small("dino", backbone=BACKBONES["vit_mini_patch8"]), "antialiased_positions"),
        (siamese("simsiam"), "method.train_projector_bias"),
        (small("clever"), None),
        (siamese("ddcl"), None),
    ],
    ids=["vit", "simsiam", "resnet", "ddcl"],
)
def test_a_checkpoint_from_before_an_option_goes_on_as_it_began(recipe, option, tmp_path):
    """It loads with what its version did; the same command is refused where that is another default, naming it."""
    trained = TrainState(recipe, Accelerator.from_execution(Execution(device="cpu", precision="fp32")))
    state = state_of(trained, recipe) | {"recipe": as_first_saved(recipe)}
    path = checkpoint.save(tmp_path, state)
    before = checkpoint.load_method(path)[1]
    if option is None:
        assert before == recipe
        checkpoint.refuse_other(path, state, recipe, DATA)
        return
    with pytest.raises(UserError, match=rf"another run: recipe\.{option} \(saved True, now False\)\."):
        checkpoint.refuse_other(path, state, recipe, DATA)
    checkpoint.refuse_other(path, state, before, DATA)
    vits = [module for module in before.build().modules() if isinstance(module, ViT)]
    assert [vit.antialiased_positions for vit in vits] == [True, True] * (option == "antialiased_positions")


def test_another_commit_is_only_noted(trained, small, tmp_path, capsys):
    state = state_of(trained, small()) | {"commit": "0.0.0+other"}
    checkpoint.refuse_other(tmp_path, state, small(), DATA)
    assert "0.0.0+other" in capsys.readouterr().out


def test_another_format_is_refused(trained, small, tmp_path):
    path = checkpoint.save(tmp_path, state_of(trained, small()) | {"format": 999})
    with pytest.raises(UserError, match="format 999"):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [b"", b"<html>", pickle.dumps(Malicious())], ids=["empty", "html", "malicious"])
def test_what_is_no_checkpoint_is_refused_and_never_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint.pth").write_bytes(content)
    with pytest.raises(UserError, match="no checkpoint of clever_fast"):
        checkpoint.load(tmp_path / "checkpoint.pth")
    assert not (tmp_path / "was_here").exists()


def test_a_truncated_checkpoint_is_refused(trained, small, tmp_path):
    path = checkpoint.save(tmp_path, state_of(trained, small()))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match="no checkpoint of clever_fast"):
        checkpoint.load(path)


def test_room_for_the_checkpoints_is_asked_for_first(trained, tmp_path, monkeypatch):
    size = trained.checkpoint_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=2 * size))
    checkpoint.prepare_folder(tmp_path, size, keep=1)
    with pytest.raises(UserError, match="lower --keep"):
        checkpoint.prepare_folder(tmp_path, size, keep=2)


def test_the_estimate_of_a_checkpoints_size_holds(trained, small, tmp_path):
    full = copy.deepcopy(trained)
    for parameter in full.method.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer = type(trained.optimizer)([p for p in full.method.parameters() if p.requires_grad], fused=True)
    optimizer.step()
    state = state_of(trained, small()) | {"optimizer": optimizer.state_dict()}
    written = checkpoint.save(tmp_path, state).stat().st_size
    assert 0.95 < written / trained.checkpoint_bytes() < 1.25
