"""Pairs of images and masks, and the measures of saliency against loops."""

import numpy as np
import pytest
import torch
from PIL import Image

from clever_fast.errors import UserError
from clever_fast.evaluate.segmentation.saliency import (
    LAYOUTS,
    Pair,
    centred,
    check,
    enlarged,
    find_pairs,
    measures,
    read_truth,
    summary,
)
from clever_fast.evaluate.segmentation.tokencut import tokencut


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def looped(truth, found):
    """Of one image: the F-measure at 255 levels, cell by cell of TokenCut's definition."""
    values = []
    for level in np.arange(255) / 255:
        mask = found > level
        precision = (mask & truth).sum() / mask.sum() if mask.any() else 1.0
        recall = (mask & truth).sum() / truth.sum()
        bottom = 0.3 * precision + recall
        values.append(1.3 * precision * recall / bottom if bottom else 0.0)
    return values


@pytest.mark.parametrize("seed", range(3))
def test_measures_equal_loops(seed):
    rng = np.random.default_rng(seed)
    truth, found = rng.random((9, 14)) < 0.3, rng.uniform(-0.1, 1.1, (9, 14))
    found[0, :5] = np.arange(5) / 255  # at levels, which are not above themselves
    iou, accuracy, f = measures(truth, found)
    mask = found > 0.5
    assert iou == pytest.approx((mask & truth).sum() / (mask | truth).sum())
    assert accuracy == pytest.approx((mask == truth).mean())
    np.testing.assert_allclose(f, looped(truth, found))


def test_known_scores():
    truth = np.zeros((10, 10), bool)
    truth[:, :5] = True
    perfect, everything, nothing = (measures(truth, x) for x in (truth * 1.0, np.ones((10, 10)), np.zeros((10, 10))))
    assert summary([perfect]) == {"max F": 100, "IoU": 100, "accuracy": 100}
    assert summary([everything])["IoU"] == 50
    assert summary([everything])["max F"] == pytest.approx(100 * 1.3 * 0.5 / 1.15)
    assert summary([nothing]) == {"max F": 0, "IoU": 0, "accuracy": 50}
    # one level for all images: each of these two is perfect at some level, no level is for both
    low, high = (measures(truth, np.where(truth, a, b)) for a, b in ((0.3, 0.1), (0.9, 0.6)))
    assert summary([low])["max F"] == summary([high])["max F"] == 100
    assert 60 < summary([low, high])["max F"] < 95


@pytest.mark.parametrize("name", LAYOUTS)
def test_official_layouts(tmp_path, name):
    _, images, masks = LAYOUTS[name]
    for number in (10, 9):
        save(tmp_path / images / f"{number}.jpg", np.zeros((20, 30, 3), np.uint8))
        save(tmp_path / masks / f"{number}.png", np.full((20, 30), 255, np.uint8))
    found, pairs = find_pairs(tmp_path)
    assert found == name
    assert [(pair.image.name, pair.truth.name) for pair in pairs] == [("9.jpg", "9.png"), ("10.jpg", "10.png")]
    for pair in pairs:
        check(pair, 16)
    for path in (tmp_path / masks).iterdir():
        path.unlink()
    (tmp_path / masks).rmdir()
    with pytest.raises(UserError, match=f"lacks {masks}: unpack .*zip"):
        find_pairs(tmp_path)


def test_folders_that_are_no_set(tmp_path):
    with pytest.raises(UserError, match=r"ECSSD: .*DUTS-TE: .*DUT-OMRON: .*--masks MASKS"):
        find_pairs(tmp_path)
    save(tmp_path / "a" / "x.png", np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="b holds no images"):
        find_pairs(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        ((20, 30), (20, 30), "b.png is all black"),
        ((20, 30), (21, 30), "b.png is 30 x 21 pixels, its image 30 x 20"),
        ((20, 12), (20, 12), "a.jpg is 12 x 20 pixels, smaller than a patch of 16"),
        ((20, 30), None, "b.png is missing"),
    ],
)
def test_bad_pairs_are_named(tmp_path, image, mask, message):
    pair = Pair(save(tmp_path / "a.jpg", np.zeros((*image, 3), np.uint8)), tmp_path / "b.png")
    if mask:
        save(pair.truth, np.zeros(mask, np.uint8))
    with pytest.raises(UserError, match=message):
        check(pair, 16)


def test_truth_is_what_is_not_black_and_in_lossy_files_what_is_nearer_to_white(tmp_path):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[4:8] = 60
    assert (read_truth(save(tmp_path / "a.png", pixels)) == (pixels > 0)).all()
    assert not read_truth(save(tmp_path / "a.jpg", pixels)).any()


@pytest.mark.parametrize("size", [(37, 53), (480, 300), (16, 9), (5, 7)])
def test_masks_are_enlarged_by_torch_s_rule(size):
    """Row y of the image shows row floor(y h / height) of the mask, counted here in whole numbers."""
    mask = np.random.default_rng(0).random((5, 7)) < 0.5
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, mask.shape))
    np.testing.assert_array_equal(enlarged(mask, size), mask[rows][:, columns])


def test_pillow_s_rule_is_another():
    mask = np.arange(7)[None] % 2 == 0
    pillow = np.asarray(Image.fromarray(mask).resize((53, 1), Image.Resampling.NEAREST))
    assert (pillow != enlarged(mask, (1, 53))).any()


def test_features_that_are_never_negative_need_centring():
    """Of a ReLU: the object differs in half of the channels, by less than all have in common."""
    generator = torch.Generator().manual_seed(0)
    features = 1 + 0.1 * torch.randn(1, 16, 12, 14, generator=generator)
    features[:, :8, 3:8, 4:9] += 0.8
    truth = np.zeros((12, 14), bool)
    truth[3:8, 4:9] = True
    (plain,), (cut,) = tokencut(features), tokencut(centred(lambda images: images)(features))
    assert (cut.mask == truth).all()
    assert measures(truth, plain.mask * 1.0)[0] < 0.5
