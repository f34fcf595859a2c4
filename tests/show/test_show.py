"""Pictures: the colours, maps and neighbours in them are those of features with a known answer."""

import numpy as np
import pytest
import torch
from PIL import Image

from clever_fast.cli import main
from clever_fast.errors import UserError
from clever_fast.models import BACKBONES
from clever_fast.pipelines.contact_sheet import CELL, GAP, HEADER, MARGIN
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.pipelines.views import MEAN, STD
from clever_fast.show.images import map_image, read, spread
from clever_fast.show.pca import components_as_colours
from tests.images import photograph


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A ViT of which the class token attends to everything alike but for chance."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vit.pth"
    torch.save(BACKBONES["vit_mini_patch8"].build(0.0).state_dict(), path)
    return path


def test_components_are_those_of_all_places_together():
    torch.manual_seed(0)
    basis, scale = torch.linalg.qr(torch.randn(16, 3))[0].T, torch.tensor([9.0, 3.0, 1.0])
    amounts = [torch.rand(40, 50, 3) * scale, torch.rand(30, 20, 3) * scale]
    colours = components_as_colours([7 + a @ basis for a in amounts])
    assert [c.shape for c in colours] == [a.shape for a in amounts]
    found, true = (torch.cat([m.flatten(0, 1) for m in maps]) for maps in (colours, amounts))
    assert found.min() == 0
    assert found.max() == 1
    correlation = torch.corrcoef(torch.cat([found, true], 1).T)[:3, 3:].abs()
    assert (correlation.diagonal() > 0.99).all()


def test_a_constant_map_has_a_colour():
    assert all(torch.isfinite(c).all() for c in components_as_colours([torch.ones(2, 2, 4)]))


def test_images_are_seen_as_the_encoder_wants_them(tmp_path):
    path = tmp_path / "a.png"
    photograph(80, 60).save(path)
    for least, size, expected in ((32, None, (80, 60)), (90, None, (120, 90)), (32, 30, (40, 30))):
        picture = read(path.read_bytes(), path.name, least=least, size=size)
        assert picture.image.size == expected
    assert read(path.read_bytes(), path.name, least=32, size=None, multiple=16).image.size == (80, 48)
    tensor = read(path.read_bytes(), path.name, least=32, size=None, label="x").tensor()
    pixels = np.asarray(photograph(80, 60), np.float64) / 255
    np.testing.assert_allclose(tensor[0].permute(1, 2, 0), (pixels - MEAN) / STD, rtol=1e-5, atol=1e-5)
    photograph(1000, 900).save(path)
    assert min(read(path.read_bytes(), path.name, least=32, size=None).image.size) == 480
    path.write_text("<html>")
    with pytest.raises(UserError, match=r"cannot read the image .*a\.png"):
        read(path.read_bytes(), path.name, least=32, size=None)


def test_queries_come_from_each_class_in_turn(images):
    manifest = open_manifest(images)
    assert manifest.labels[spread(manifest, 5)].tolist() == [0, 1, 2, 0, 1]
    assert sorted(spread(manifest, 999)) == list(range(24))


def test_a_map_s_values_lie_over_their_patches():
    values = np.array([[0.0, 1.0], [0.5, 0.0]])
    shown = np.asarray(map_image(values, Image.new("RGB", (40, 20)))).astype(int).sum(2)
    assert shown.shape == (20, 40)
    assert len(np.unique(shown[:10, 20:])) == 1
    assert shown[0, 39] > shown[19, 0] > shown[0, 0] == shown[19, 39]


def tile(sheet: Image.Image, row: int, column: int, columns_after: int, lines: int, cell: int) -> np.ndarray:
    x = MARGIN + column * (cell + GAP) + GAP * columns_after
    y = MARGIN + HEADER + row * (cell + GAP + lines * 15 + 8)
    return np.asarray(sheet)[y : y + cell, x : x + cell]


def test_the_attention_sheet_shows_what_the_class_token_attends_to(weights, images, tmp_path):
    from clever_fast.encoders.weights import read_encoder
    from clever_fast.models.dense import class_attention

    photograph(CELL, CELL).save(tmp_path / "a.png")
    words = ["show", "attention", "--weights", str(weights), "--image", str(tmp_path / "a.png"), "--device", "cpu"]
    assert main([*words, "--size", str(CELL), "--out", str(tmp_path / "out.png")]) == 0
    sheet = Image.open(tmp_path / "out.png")
    np.testing.assert_array_equal(tile(sheet, 0, 0, 0, 3, CELL), np.asarray(photograph(CELL, CELL)))
    encoder, *_ = read_encoder(weights)
    with torch.no_grad():
        heads = class_attention(
            encoder, read((tmp_path / "a.png").read_bytes(), "a.png", least=64, size=CELL).tensor()
        )[0]
    for column, values in enumerate([heads.mean(0), *heads], start=1):
        brightness = tile(sheet, 0, column, min(column, 2), 3, CELL).astype(float).sum(2)
        blocks = brightness.reshape(19, 8, 19, 8).mean((1, 3))
        order = np.corrcoef(blocks.ravel().argsort().argsort(), values.numpy().ravel().argsort().argsort())[0, 1]
        assert order > 0.9  # rounding of a GPU or bfloat16 may swap neighbours


def test_an_image_is_its_own_nearest_only_in_another_split(weights, images, tmp_path, capsys):
    words = ["show", "neighbours", "--weights", str(weights), "--device", "cpu", "--neighbours", "2", "--images", "2"]
    for data, own in ((images / "train", False), (images, True)):
        split = ["--split", "train"] if own else []
        assert main([*words, "--data", str(data), "--out", str(tmp_path / "a.png"), *split]) == 0
        sheet = Image.open(tmp_path / "a.png")
        assert sheet.width > 3 * 104
        query, nearest = (tile(sheet, 0, column, bool(column), 2, 104) for column in (0, 1))
        assert not np.array_equal(query, nearest)


def test_pca_of_every_family(images, tmp_path):
    for name in ("resnet10_small", "vmamba_mini", "vit_mini_patch8"):
        torch.manual_seed(0)
        torch.save(BACKBONES[name].build(0.0).state_dict(), tmp_path / "a.pth")
        words = ["show", "pca", "--weights", str(tmp_path / "a.pth"), "--data", str(images), "--device", "cpu"]
        assert main([*words, "--images", "2", "--size", "64", "--out", str(tmp_path / f"{name}.png")]) == 0
        first, second = (tile(Image.open(tmp_path / f"{name}.png"), row, 1, 1, 3, CELL) for row in (0, 1))
        assert first.std() > 10
        assert not np.array_equal(first, second)


def test_bad_input(weights, images, tmp_path, capsys):
    def refused(*words: object) -> str:
        assert main(["show", *map(str, words), "--device", "cpu"]) == 2
        captured = capsys.readouterr().err
        assert captured.count("\n") == 1
        return captured

    file = next((images / "val").rglob("*.jpg"))
    assert "either --run RUN or --weights FILE" in refused("attention", "--image", file)
    assert "either --data DIR or --image FILE" in refused("pca", "--weights", weights)
    assert "smaller than a patch of 8" in refused("attention", "--weights", weights, "--image", file, "--size", "4")
    assert "--images 0 is too few" in refused("pca", "--weights", weights, "--data", images, "--images", "0")
    assert "at most 23" in refused("neighbours", "--weights", weights, "--data", images, "--neighbours", "24")
    assert "cannot write" in refused("pca", "--weights", weights, "--image", file, "--out", tmp_path / "a.xyz")
    torch.save(BACKBONES["resnet10_small"].build(0.0).state_dict(), tmp_path / "a.pth")
    assert "a ResNet has no attention" in refused("attention", "--weights", tmp_path / "a.pth", "--image", file)
