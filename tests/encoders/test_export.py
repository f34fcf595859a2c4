"""What is exported computes the same elsewhere: timm, safetensors, ONNX Runtime."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clever_fast.cli import main
from clever_fast.encoders import export
from clever_fast.errors import UserError
from clever_fast.models import BACKBONES
from clever_fast.models.vit import vit
from clever_fast.models.vmamba import VMamba
from clever_fast.ops import extension
from clever_fast.options import Recipe


@pytest.fixture
def run(small, tmp_path):
    """The folder of a run's encoder, the encoder and its recipe."""
    torch.manual_seed(0)
    recipe = small()
    method = recipe.method.build(recipe.backbone, 0.0).eval()
    for name, buffer in method.encoder.named_buffers():  # BatchNorm's statistics, away from 0 and 1
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    export.write_run(tmp_path, method, recipe, 7)
    return tmp_path, method.encoder, recipe


def test_safetensors_of_a_run(run):
    folder, encoder, recipe = run
    model = recipe.backbone.build(0.0)
    model.load_state_dict(load_file(folder / "encoder.safetensors"), strict=True)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.eval()(x), encoder(x))
    about = json.loads((folder / "encoder.json").read_text())
    assert about["parts"] == {"all": [0, 256], "IR": [0, 204], "EF": [204, 256]}
    assert (about["backbone"], about["size"], about["step"]) == ("resnet10_small", 32, 7)
    assert Recipe.from_dict(about["recipe"]) == recipe
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.json", "encoder.safetensors"]


def test_safetensors_there_and_back(run, capsys):
    folder, encoder, _ = run
    words = ["export", "--weights", str(folder / "encoder.safetensors"), "--out", str(folder / "other.safetensors")]
    assert main(words) == 0
    assert "other.safetensors: resnet10_small of" in capsys.readouterr().out
    weights = load_file(folder / "other.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in encoder.state_dict().items())
    first, second = (json.loads((folder / f"{name}.json").read_text()) for name in ("encoder", "other"))
    assert all(first[key] == second[key] for key in ("backbone", "size", "features", "parts", "mean", "std"))


def test_timm(tmp_path, capsys):
    import timm

    torch.manual_seed(0)
    encoder = BACKBONES["resnet18"].build(0.0).eval()
    torch.save(encoder.state_dict(), tmp_path / "a.pth")
    words = ["export", "--weights", str(tmp_path / "a.pth"), "--format", "timm", "--out", str(tmp_path / "b.pth")]
    assert main(words) == 0
    assert "timm.create_model('resnet18', num_classes=0)" in capsys.readouterr().out
    model = timm.create_model("resnet18", num_classes=0, checkpoint_path=str(tmp_path / "b.pth")).eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), encoder(x))
    with pytest.raises(UserError, match="timm has no network with the weights of vmamba_mini"):
        export.write_timm(tmp_path / "c.pth", BACKBONES["vmamba_mini"].build(0.0), BACKBONES["vmamba_mini"])
    assert not (tmp_path / "c.pth").exists()


def assert_onnx_equal(encoder: torch.nn.Module, size: int, path) -> dict[str, str]:
    """ONNX Runtime computes an encoder's features for other batches than the traced one; returns the metadata."""
    onnxruntime = pytest.importorskip("onnxruntime")
    parts = {"all": slice(None), "IR": slice(0, 5), "EF": slice(5, None)}
    export.write_onnx(path, encoder, export.description(encoder, BACKBONES["resnet18"], parts, size))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for N in (1, 3):
        x = torch.randn(N, 3, size, size)
        (features,) = session.run(["features"], {"images": x.numpy()})
        with torch.no_grad():
            expected = encoder(x).numpy()
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)
        assert np.abs(expected).max() > 0.1
    return session.get_modelmeta().custom_metadata_map


def test_onnx_of_a_resnet(run, tmp_path):
    _, encoder, _ = run
    about = assert_onnx_equal(encoder, 31, tmp_path / "a.onnx")
    assert json.loads(about["parts"]) == {"all": [0, 256], "IR": [0, 5], "EF": [5, 256]}
    assert json.loads(about["mean"]) == [0.485, 0.456, 0.406]


@pytest.mark.full
def test_onnx_of_a_vit_at_another_size_than_its_embeddings(tmp_path):
    torch.manual_seed(0)
    assert_onnx_equal(vit(24, 2, 2, patch_size=8, image_size=32).eval(), 48, tmp_path / "a.onnx")


@pytest.mark.full
@pytest.mark.skipif(bool(extension.missing), reason="the kernels were not built")
def test_onnx_of_a_vmamba(tmp_path):
    torch.manual_seed(0)
    assert_onnx_equal(VMamba(16, (1, 1)).eval(), 28, tmp_path / "a.onnx")


def test_bad_input(run, capsys, monkeypatch):
    folder, *_ = run
    weights = ["export", "--weights", str(folder / "encoder.safetensors")]

    def refused(*words: object) -> str:
        assert main([*weights, *map(str, words)]) == 2
        return capsys.readouterr().err

    assert "does not end in .onnx" in refused("--format", "onnx", "--out", folder / "a.pth")
    assert "cannot write" in refused("--out", folder / "encoder.json" / "a.safetensors")
    assert "Got value: torchscript" in refused("--format", "torchscript", "--out", folder / "a.pth")
    assert "either --run RUN or --weights FILE" in refused("--run", folder, "--out", folder / "a.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert "pip install 'clever_fast[export]'" in refused("--format", "onnx", "--out", folder / "a.onnx")
    monkeypatch.undo()
    monkeypatch.setattr(export, "DECOMPOSITIONS", {})
    with pytest.raises(UserError, match="onnx of a VMamba needs the kernels"):
        export.write_onnx(folder / "a.onnx", VMamba(16, (1,)), {"size": 16})
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.json", "encoder.safetensors"]
