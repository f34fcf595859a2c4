"""Files of weights of every kind: all of them in, or an error that names what is missing; nothing in them runs."""

import argparse
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from clever_fast import checkpoint
from clever_fast.encoders import export
from clever_fast.encoders.encoder import load_encoder
from clever_fast.encoders.weights import read_encoder, recognise
from clever_fast.errors import UserError
from clever_fast.models import BACKBONES
from clever_fast.models.vit import resize_positions
from tests.malicious import Malicious
from tests.recipes import siamese

FULL = pytest.mark.full
SMALL = ("resnet10_small", "vit_mini_patch8", "vmamba_mini")  # one of each family


def weights_of(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = BACKBONES[name].build(0.0).state_dict()
    return {key: torch.rand_like(t) + 0.5 if t.is_floating_point() else t for key, t in state.items()}


def heads(name: str, widths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Of DINO (one) or CLeVER (two), with the weight-normalised last layer's names."""
    found = {}
    for head, width in zip(("head", "head2"), widths):
        found |= {f"{head}.mlp.0.weight": torch.zeros(8, width), f"{head}.mlp.0.bias": torch.zeros(8)}
        found |= {f"{head}.last_layer.weight_g": torch.ones(5, 1), f"{head}.last_layer.weight_v": torch.zeros(5, 4)}
    return found


def assert_holds(encoder: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    assert not encoder.training
    assert set(encoder.state_dict()) == set(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_recognised(name):
    with torch.device("meta"):
        assert recognise(BACKBONES[name].build(0.0).state_dict()).name == name


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_checkpoints_of_dino_and_clever(name, wrapper, tmp_path, capsys):
    weights = weights_of(name)
    D = BACKBONES[name].build(0.0).embed_dim
    for widths in ((D,), (D // 2, D - D // 2)):
        network = {f"backbone.{key}": tensor for key, tensor in weights.items()} | heads(name, widths)
        teacher = {f"{wrapper}{key}": tensor for key, tensor in network.items()}
        student = {f"module.{key}": torch.zeros_like(tensor) for key, tensor in network.items()}
        args = argparse.Namespace(arch=name, lr=0.0005, local_crops_scale=[0.05, 0.4])
        path = tmp_path / "checkpoint.pth"
        torch.save({"student": student, "teacher": teacher, "optimizer": {}, "epoch": 3, "args": args}, path)
        encoder, parts, size, _ = read_encoder(path)
        assert_holds(encoder, weights)
        said = capsys.readouterr().out
        assert f"{len(weights)} weights of {name}" in said
        if len(widths) == 1:
            assert "left out head.*, 4 weights" in said
            assert parts == {"all": slice(None)}
        else:
            assert "left out head.*, head2.*, 8 weights" in said
            assert parts == {"all": slice(None), "IR": slice(0, D // 2), "EF": slice(D // 2, None)}
        assert size == 224


def under(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def scaled(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Other weights of the same network, as a teacher has."""
    return {name: 2 * tensor for name, tensor in weights.items()}


LAYERS = {"0.weight": torch.zeros(8, 4), "1.bias": torch.zeros(8)}  # of a projector
R, V = "resnet10_small", "vit_mini_patch8"
# project -> (network, container, where its trained network lies, where its average, what lies beside them)
FOREIGN = {
    "SimSiam": (R, "state_dict", "module.encoder.", None, ("module.encoder.fc.", "module.predictor.")),
    "DDCL": (R, "state_dict", "module.encoder.", None, ("module.predictor_img.", "module.predictor_aug.")),
    "MoCo v2": (R, "state_dict", "module.encoder_q.", "module.encoder_k.", ("module.encoder_q.fc.",)),
    "MoCo v3, ResNet": (R, "state_dict", "module.base_encoder.", "module.momentum_encoder.",
                        ("module.base_encoder.fc.", "module.momentum_encoder.fc.", "module.predictor.")),
    "MoCo v3, ViT": (V, "state_dict", "module.base_encoder.", "module.momentum_encoder.",
                     ("module.base_encoder.head.", "module.momentum_encoder.head.", "module.predictor.")),
    "VICReg, encoder": (R, None, "", None, ()),
    "VICReg, whole": (R, "model", "module.backbone.", None, ("module.projector.",)),
    "solo-learn": (V, "state_dict", "backbone.", "momentum_backbone.",
                   ("projector.", "predictor.", "momentum_projector.", "classifier.")),
    "Lightning, compiled": (R, "state_dict", "model._orig_mod.backbone.", None, ("model._orig_mod.projector.",)),
    "Lightning, BYOL": (R, "state_dict", "online_network.encoder.", "target_network.encoder.",
                        ("online_network.projector.", "online_network.predictor.")),
}  # fmt: skip


@pytest.mark.parametrize("project", FOREIGN)
def test_checkpoints_of_other_projects(project, tmp_path, capsys):
    name, container, trained, averaged, beside = FOREIGN[project]
    weights, path = weights_of(name), tmp_path / "a.ckpt"
    content = under(trained, weights)
    if averaged:
        content |= under(averaged, scaled(weights))
    for prefix in beside:
        content |= under(prefix, LAYERS)
    torch.save({container: content, "epoch": 3, "optimizer_states": []} if container else content, path)
    found = read_encoder(path)
    assert_holds(found.network, weights)
    assert found.protocol == ("simsiam" if project in ("SimSiam", "DDCL") else "dino")
    said = capsys.readouterr().out
    rest = len(content) - len(weights)
    assert (f"{rest} weights" in said) == bool(rest)
    for prefix in beside:
        assert prefix.removeprefix("module.").replace("_orig_mod.", "").split(".")[0] in said
    if averaged:
        assert_holds(read_encoder(path, network="student").network, weights)
        assert_holds(read_encoder(path, network="teacher").network, scaled(weights))
    else:
        with pytest.raises(UserError, match=r"one network, .*leave out --network teacher"):
            read_encoder(path, network="teacher")


def test_ddcl_s_projectors_tell_the_parts(tmp_path):
    heads = {"projector_img.0.weight": torch.zeros(9, 204), "projector_aug.0.weight": torch.zeros(9, 52)}
    heads |= {"predictor_img.0.weight": torch.zeros(3, 9)}
    content = under("module.encoder.", weights_of(R)) | under("module.", heads)
    torch.save({"state_dict": content}, tmp_path / "a.pth")
    found = read_encoder(tmp_path / "a.pth")
    assert found.parts == {"all": slice(None), "IR": slice(0, 204), "EF": slice(204, None)}
    assert found.protocol == "simsiam"


def test_dino_s_student_and_teacher_by_name(tmp_path):
    weights, path = weights_of(V), tmp_path / "a.pth"
    teacher, student = under("backbone.", scaled(weights)), under("module.backbone.", weights)
    torch.save({"student": student, "teacher": teacher, "epoch": 1}, path)
    assert_holds(read_encoder(path).network, scaled(weights))
    assert_holds(read_encoder(path, network="student").network, weights)
    torch.save({"student": student}, path)
    with pytest.raises(UserError, match="holds 'student', no 'teacher': leave out --network teacher"):
        read_encoder(path, network="teacher")
    both = under("teacher.backbone.", scaled(weights)) | under("student.backbone.", weights)  # in one dictionary
    torch.save({"state_dict": both}, path)
    assert_holds(read_encoder(path).network, scaled(weights))
    assert_holds(read_encoder(path, network="student").network, weights)


def test_files_in_which_no_network_or_several_are_found(tmp_path):
    path, weights = tmp_path / "a.pth", weights_of(R)
    torch.save({"state_dict": {"features.0.weight": torch.zeros(2), "queue": torch.zeros(3)}}, path)
    with pytest.raises(UserError, match=r"no network .* was found among features\.\* \(1\), queue \(1\)$"):
        read_encoder(path)
    torch.save({"state_dict": under("left.", weights) | under("right.", weights)}, path)
    with pytest.raises(UserError, match=r"more than one student .* the networks left\.\* and right\.\*: keep"):
        read_encoder(path)


def test_a_wrapped_network_that_lacks_a_weight_is_still_told(tmp_path):
    weights = weights_of(R)
    del weights["conv1.weight"]
    torch.save(
        {"state_dict": under("module.encoder.", weights) | under("module.predictor.", LAYERS)}, tmp_path / "a.pth"
    )
    with pytest.raises(UserError, match=r"1 missing for resnet10_small: conv1\.weight$"):
        read_encoder(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("container", "classifier"), [(None, "fc"), (None, "head"), ("model", "classifier.head"), ("state_dict", "fc")]
)
def test_files_with_a_classifier(container, classifier, tmp_path, capsys):
    name = "vmamba_mini" if classifier == "classifier.head" else "vit_mini_patch8" if classifier == "head" else SMALL[0]
    weights, path = weights_of(name), tmp_path / "released.pth"
    content = {**weights, f"{classifier}.weight": torch.zeros(9, 3), f"{classifier}.bias": torch.zeros(9)}
    torch.save({container: content} if container else content, path, _use_new_zipfile_serialization=False)
    encoder, parts, *_ = read_encoder(path, name)
    assert_holds(encoder, weights)
    assert parts == {"all": slice(None)}
    assert f"left out {classifier}.*, 2 weights" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=FULL)])
def test_torchvision_s_names_are_ours(name, tmp_path):
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, name)().eval()
    state = {key: t for key, t in model.state_dict().items() if not key.endswith("num_batches_tracked")}  # older files
    torch.save(state, tmp_path / "tv.pth")
    encoder, _, size, _ = read_encoder(tmp_path / "tv.pth")
    model.fc = torch.nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(encoder(x), model(x))
    assert size == 224


QUICK = ("resnet18", "vit_tiny_patch16_224")
TIMM = [name for name, backbone in BACKBONES.items() if backbone.in_timm]


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=FULL) for name in TIMM])
def test_timm_s_names_are_ours(name):
    import timm

    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0)
        theirs.load_state_dict(BACKBONES[name].build(0.0).state_dict(), strict=True)
    assert recognise(theirs.state_dict()).name == name


def test_a_linear_layer_saved_as_a_convolution(tmp_path):
    weights = weights_of("vmamba_mini")
    name = "layers.0.blocks.0.op.in_proj.weight"
    torch.save({"model": weights | {name: weights[name][:, :, None, None]}}, tmp_path / "a.pth")
    assert_holds(read_encoder(tmp_path / "a.pth")[0], weights)


def test_position_embeddings_of_another_size_are_interpolated(tmp_path, capsys):
    weights = weights_of("vit_mini_patch8")
    other = torch.randn(1, 1 + 5 * 5, 96)
    torch.save(weights | {"pos_embed": other}, tmp_path / "a.pth")
    encoder, *_ = read_encoder(tmp_path / "a.pth")
    assert_holds(encoder, weights | {"pos_embed": resize_positions(other, (8, 8))})
    assert "5 x 5 patches interpolated to 8 x 8" in capsys.readouterr().out
    torch.save(weights | {"pos_embed": other[:, :-1]}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="24 position embeddings are no square"):
        read_encoder(tmp_path / "a.pth")


def test_our_own_files(small, tmp_path):
    from clever_fast.accelerator import Accelerator
    from clever_fast.options import Execution
    from clever_fast.train_state import TrainState

    recipe = small()
    trained = TrainState(recipe, Accelerator.from_execution(Execution(device="cpu")))
    with torch.no_grad():  # the student moves away
        trained.method.student.backbone.conv1.weight.add_(1)
    state = checkpoint.content(trained.state_dict(), recipe=recipe, data={}, step=7, epoch=2)
    files = checkpoint.save(tmp_path, state), export.write_run(tmp_path, trained.method, recipe, 7)
    for path in files:
        encoder, parts, size, _ = read_encoder(path)
        assert_holds(encoder, trained.method.encoder.state_dict())
        widths = {name: part.indices(256)[:2] for name, part in parts.items()}
        assert widths == {"all": (0, 256), "IR": (0, 204), "EF": (204, 256)}
        assert size == 32
        with pytest.raises(UserError, match="holds a resnet10_small, not a resnet18"):
            read_encoder(path, "resnet18")
    student = read_encoder(files[0], network="student").network
    assert_holds(student, trained.method.student.backbone.state_dict())
    assert_holds(load_encoder(tmp_path, network="teacher").network.eval(), trained.method.teacher.backbone.state_dict())
    with pytest.raises(UserError, match="safetensors holds one network: leave out --network student"):
        read_encoder(files[1], network="student")
    (tmp_path / "encoder.json").unlink()
    encoder, parts, *_ = read_encoder(tmp_path / "encoder.safetensors")  # recognised
    assert_holds(encoder, trained.method.encoder.state_dict())
    assert list(parts) == ["all"]


@pytest.mark.parametrize("method", ["simsiam", "ddcl"])
def test_a_run_of_simsiam_has_one_network_and_its_own_protocol(method, tmp_path):
    from clever_fast.accelerator import Accelerator
    from clever_fast.options import Execution
    from clever_fast.train_state import TrainState

    recipe = siamese(method)
    trained = TrainState(recipe, Accelerator.from_execution(Execution(device="cpu")))
    state = checkpoint.content(trained.state_dict(), recipe=recipe, data={}, step=7, epoch=2)
    for path in (checkpoint.save(tmp_path, state), export.write_run(tmp_path, trained.method, recipe, 7)):
        assert read_encoder(path).protocol == "simsiam"
    with pytest.raises(UserError, match=f"a run of {method} has one network: leave out --network student"):
        load_encoder(tmp_path, network="student")


def test_weights_that_are_missing_or_unknown_are_listed(tmp_path):
    weights = weights_of("vit_mini_patch8")
    del weights["norm.weight"]
    weights |= {"blocks.0.attn.qkv.bias": torch.zeros(5), "fc_norm.weight": torch.zeros(96)}
    torch.save(weights, tmp_path / "a.pth")
    wanted = r"vit_mini_patch8.*1 missing for vit_mini_patch8: norm.weight; 1 unknown: fc_norm.weight; "
    for name in (None, "vit_mini_patch8"):
        with pytest.raises(UserError, match=wanted + r"1 of another shape: .*qkv.bias \(5,\) instead of \(288,\)"):
            read_encoder(tmp_path / "a.pth", name)
    with pytest.raises(UserError, match=r"65 missing for resnet10_small: conv1.weight, .*\.\.\.; \d+ unknown"):
        read_encoder(tmp_path / "a.pth", "resnet10_small")
    with pytest.raises(UserError, match="no backbone is called 'vit'; there are resnet10_small"):
        read_encoder(tmp_path / "a.pth", "vit")


def test_weights_that_fit_two_backbones_are_not_guessed(monkeypatch):
    monkeypatch.setitem(BACKBONES, "twin", BACKBONES["vmamba_mini"])
    with pytest.raises(UserError, match="fit vmamba_mini and twin; choose with --backbone"):
        recognise(weights_of("vmamba_mini"))


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_nothing_in_a_file_runs(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"teacher": {"a": torch.zeros(2)}, "args": Malicious()}
    if form == "pickle":
        (tmp_path / "a.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    else:
        torch.save(content, "a.pth", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"a\.pth holds no weights that can be read safely"):
        read_encoder(tmp_path / "a.pth")
    assert os.listdir() == ["a.pth"]


def test_a_class_that_would_run_is_named(tmp_path):
    torch.save({"model": {}, "config": tmp_path}, tmp_path / "a.pth")  # a pathlib.Path, as some checkpoints hold
    with pytest.raises(UserError, match=r"would run pathlib\.PosixPath; if you trust its source"):
        read_encoder(tmp_path / "a.pth")


def test_what_is_no_file_of_weights(tmp_path):
    with pytest.raises(UserError, match="not there"):
        read_encoder(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="is a folder"):
        read_encoder(tmp_path)
    path = tmp_path / "a.pth"
    torch.save(weights_of("vmamba_mini"), path)
    whole = path.read_bytes()
    for content in (b"", b"<html>", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged, or no checkpoint of torch"):
            read_encoder(path)
    for content, message in (
        (torch.zeros(3), "holds a Tensor"),
        ({}, "holds nothing"),
        ({"epoch": 3, "weights": {}}, "holds epoch, weights; expected weights, or one of the keys teacher, student"),
        ({"module.a": torch.zeros(1), "a": torch.zeros(1)}, "holds a twice"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            read_encoder(path)


def test_broken_safetensors(tmp_path):
    path, weights = tmp_path / "a.safetensors", weights_of("vmamba_mini")
    save_file(weights, path)
    about = {"backbone": "vmamba_mini", "size": 48, "parts": {"all": [0, 128]}}
    for changed, message in (
        ({"size": None}, "does not describe a.safetensors"),
        ({"backbone": "resnet18"}, "100 missing for resnet18"),
        ({"backbone": "resnet99"}, "does not know"),
    ):
        kept = {key: value for key, value in (about | changed).items() if value is not None}
        path.with_suffix(".json").write_text(json.dumps(kept))
        with pytest.raises(UserError, match=message):
            read_encoder(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match="does not describe"):
        read_encoder(path)
    os.truncate(path, 1000)
    with pytest.raises(UserError, match="no whole safetensors file"):
        read_encoder(path)
