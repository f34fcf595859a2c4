"""J and F against an implementation by distances, on known answers, and the statistics of the official code."""

import numpy as np
import pytest

from clever_fast.evaluate.segmentation.boundaries import boundary, boundary_accuracy, region_similarity, statistics


def edge_pixels(mask):
    """The pixels that differ from one to the right, below, or both; by loops."""
    height, width = mask.shape
    found = [
        (y, x)
        for y in range(height)
        for x in range(width)
        if any(
            mask[y, x] != mask[min(y + dy, height - 1), min(x + dx, width - 1)] for dy, dx in ((0, 1), (1, 0), (1, 1))
        )
    ]
    return np.array(found).reshape(-1, 2)


def f_by_distances(truth, mask, tolerance=0.008):
    radius = np.ceil(tolerance * np.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    wanted, found = edge_pixels(truth), edge_pixels(mask)
    if not len(wanted) or not len(found):
        return float(len(wanted) == len(found))
    near = ((wanted[:, None] - found) ** 2).sum(-1) <= radius**2
    recall, precision = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def blobs(rng, shape, threshold):
    """Smooth random regions, some of them at the border."""
    field = rng.standard_normal((shape[0] // 8 + 2, shape[1] // 8 + 2))
    return np.kron(field, np.ones((8, 8)))[: shape[0], : shape[1]] > threshold


@pytest.mark.parametrize("seed", range(6))
def test_equals_distances_between_boundaries(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(30, 60)), int(rng.integers(30, 90)))
    truth = blobs(rng, shape, 0.8)
    mask = np.roll(truth, rng.integers(-3, 4, 2), (0, 1)) ^ (rng.random(shape) < 0.01)
    for tolerance in (0.008, 0.03):
        assert boundary_accuracy(truth, mask, tolerance) == pytest.approx(f_by_distances(truth, mask, tolerance))
    assert boundary(truth).sum() == len(edge_pixels(truth))


def square(top, left, side=20, shape=(100, 120)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_known_answers():
    one, empty = square(10, 10), np.zeros((100, 120), bool)
    assert region_similarity(one, one) == boundary_accuracy(one, one) == 1
    assert region_similarity(one, square(10, 20)) == pytest.approx(1 / 3)
    assert region_similarity(one, square(60, 60)) == boundary_accuracy(one, square(60, 60)) == 0
    assert region_similarity(empty, empty) == boundary_accuracy(empty, empty) == 1
    assert region_similarity(one, empty) == boundary_accuracy(one, empty) == boundary_accuracy(empty, one) == 0
    # the diagonal is 156 px, so 2 px are within the tolerance and 4 are not
    assert boundary_accuracy(one, square(10, 12)) == 1
    assert 0.4 < boundary_accuracy(one, square(10, 14)) < 0.7


def test_statistics_are_those_of_the_official_code():
    """davis2017.utils.db_statistics: four bins that share their ends."""
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    mean, recall, decay = statistics(values)
    assert mean == pytest.approx(0.55)
    assert recall == pytest.approx(0.5)  # 0.5 itself does not count
    # ends at round(linspace(1, 8, 5)) - 1 = 0, 2, 4, 5, 7: the first bin is 0..2, the last 5..7
    assert decay == pytest.approx((0.9 + 0.8 + 0.7) / 3 - (0.4 + 0.3 + 0.2) / 3)
    assert statistics(np.ones(1)) == (1, 1, 0)
    long = np.linspace(1, 0, 600)  # the official code's 8-bit indices would wrap here
    assert statistics(long).decay == pytest.approx(0.75, abs=0.01)
