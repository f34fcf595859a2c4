"""The contact sheet shows the crops that the loader makes, and the numbers they were made with."""

import numpy as np
import pytest
from PIL import Image

from clever_fast.commands.preview import preview
from clever_fast.errors import UserError
from clever_fast.pipelines import preview as preview_module
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.pipelines.policies import CAUG, CAUG_PLUS, POLICIES
from clever_fast.pipelines.pretraining import MEAN, STD, PretrainingLoader
from clever_fast.pipelines.preview import CELL, GAP, HEADER, MARGIN, contact_sheet, describe
from clever_fast.pipelines.views import by_crop
from tests.images import encode, photograph


@pytest.fixture
def folder(tmp_path):
    for i in range(5):
        (tmp_path / f"data/class{i % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"data/class{i % 2}/{i}.jpg").write_bytes(encode(photograph(CELL, CELL - 10 * i, seed=i)))
    return tmp_path / "data"


def cell(sheet, top, row_height, row, column):
    x, y = MARGIN + column * (CELL + GAP), top + HEADER + row * row_height
    return np.asarray(sheet)[y : y + CELL, x : x + CELL].astype(float)


def test_the_sheet_shows_the_loader_s_crops(folder):
    manifest = open_manifest(folder)
    # Views as large as their cells, so that nothing is resized on the sheet.
    policies = [p.with_crops(global_size=CELL, local_size=CELL, local_crops=1) for p in (CAUG, CAUG_PLUS)]
    sheet = contact_sheet(manifest, policies, images=2, seed=3, epoch=1)
    block = (sheet.height - MARGIN) // 2
    row_height = (block - HEADER - GAP) // 2
    assert sheet.width >= 2 * MARGIN + 4 * CELL + 3 * GAP
    for i, policy in enumerate(policies):
        loader = PretrainingLoader(manifest, policy, seed=3, batch_size=2, dtype="float32", start_step=2)
        indices, views = next(iter(loader))
        for row in range(2):
            shown = cell(sheet, MARGIN + i * block, row_height, row, 0)
            with Image.open(folder / manifest.paths[indices[row]]) as image:
                pixels = np.asarray(image, float)
            np.testing.assert_array_equal(shown[CELL - len(pixels) :], pixels)
            for column, crop in enumerate(by_crop(views, 2), start=1):
                expected = crop[row] * STD + MEAN
                assert np.abs(cell(sheet, MARGIN + i * block, row_height, row, column) - expected).max() <= 0.51


def test_the_text_names_what_was_drawn():
    drawn = {"crop_start": (10, 70), "crop_end": (60, 30), "angle": -45.4, "elastic": True, "jitter": True}
    drawn |= {"brightness": 1.214, "contrast": 0.8, "saturation": 1.0, "hue": -0.1}
    drawn |= {"grayscale": True, "blur": True, "blur_sigma": 1.26, "solarize": True}
    assert describe(drawn, area=8000) == [
        "25% of the image, flip",
        "turn -45°, elastic",
        "bright 1.21, contrast 0.80",
        "satur 1.00, hue -36°",
        "gray, blur 1.3, solarize",
    ]
    switched = dict.fromkeys(("elastic", "jitter", "grayscale", "blur", "solarize"), np.False_)
    assert describe(drawn | switched | {"crop_end": (60, 110)}, area=8000) == ["25% of the image", "turn -45°"]


def test_no_line_is_wider_than_its_crop():
    from PIL import ImageFont

    widest = {"crop_start": (0, 99), "crop_end": (99, 0), "angle": -88.0, "elastic": True, "jitter": True}
    widest |= {"brightness": 0.66, "contrast": 0.66, "saturation": 0.88, "hue": -0.1}
    widest |= {"grayscale": True, "blur": True, "blur_sigma": 0.66, "solarize": True}
    assert max(ImageFont.load_default(12).getlength(line) for line in describe(widest, 9801.0)) <= CELL + GAP - 4


def test_the_command_writes_a_png(folder, tmp_path, capsys):
    preview(folder, tmp_path / "sheet.png", policy="baug", images=9)  # more than there are
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 2 * MARGIN + 11 * (CELL + GAP) - GAP
        assert f"{sheet.width} x {sheet.height} pixels" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file" / "sheet.png", tmp_path / "sheet.xyz"):
        with pytest.raises(UserError, match="cannot write"):
            preview(folder, bad, policy="baug", images=1)
    with pytest.raises(UserError, match="--images 0 is too few"):
        preview(folder, images=0)


def test_a_policys_steps_are_folded_into_two_lines_beside_its_name():
    for policy in POLICIES.values():
        left, text = preview_module._title(policy, "seed 123, epoch 45", preview_module.LEAST)
        assert text.count("\n") <= 1
        assert all(left + preview_module.SMALL.getlength(line) <= preview_module.LEAST for line in text.split("\n"))
        assert " ".join(text.split()).endswith("; seed 123, epoch 45")
