"""Label propagation against every position against every other, and on features whose answer is known."""

import pytest
import torch

from clever_fast.benchmarks.checks import plain_video
from clever_fast.evaluate.segmentation.propagation import Propagation, propagate


@pytest.mark.parametrize(
    ("h", "w", "settings"),
    [
        (17, 33, Propagation()),  # several tiles, one a row high
        (15, 16, Propagation(previous=2, radius=4, neighbours=3)),
        (9, 5, Propagation(previous=1, radius=0, neighbours=1)),  # the same place only
        (3, 40, Propagation(previous=3, radius=12, neighbours=1, temperature=0.5)),
    ],
)
def test_equals_the_whole_affinity(h, w, settings):
    torch.manual_seed(0)
    features, labels = torch.randn(12, 7, h, w), torch.rand(3, h, w)
    wanted = torch.stack(list(plain_video.propagate(iter(features), labels, settings)))
    found = torch.stack(list(propagate(features, labels, settings)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    assert found.sum(0).std() > 0


def test_fewer_positions_than_neighbours_all_vote():
    labels = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # (2, 1, 2)
    features = torch.ones(3, 4, 1, 2)
    *_, last = propagate(features, labels, Propagation())
    torch.testing.assert_close(last, torch.full((2, 1, 2), 0.5))


def test_those_as_similar_as_the_last_neighbour_vote_too():
    """Equal features everywhere: the mean over the whole neighbourhood, as in the plain form."""
    labels = torch.zeros(2, 20, 20)
    labels[1, :, 10:], labels[0, :, :10] = 1, 1
    features, settings = torch.ones(3, 5, 20, 20), Propagation(radius=3)
    found = list(propagate(features, labels, settings))
    assert found[1][1, 10, 9] == pytest.approx(3 / 7)
    wanted = list(plain_video.propagate(iter(features), labels, settings))
    torch.testing.assert_close(torch.stack(found), torch.stack(wanted), rtol=0, atol=1e-6)


def moving_square(frames: int = 10, side: int = 24):
    """Labels (T, side, side) int64 of a square that moves a position a frame, another that stands still."""
    labels = torch.zeros(frames, side, side, dtype=torch.int64)
    for time, frame in enumerate(labels):
        frame[4:10, 2 + time : 8 + time] = 1
        frame[15:20, 15:20] = 2
    return labels


def one_hot(labels):
    return torch.nn.functional.one_hot(labels, 3).movedim(-1, -3).float()


def iou(found, truth):
    return ((found == 1) & (truth == 1)).sum() / ((found == 1) | (truth == 1)).sum()


def test_perfect_features_carry_the_labels_and_random_ones_lose_them():
    truth = moving_square()
    perfect = one_hot(truth)
    found = torch.stack(list(propagate(perfect, perfect[0], Propagation()))).argmax(1)
    assert torch.equal(found, truth)
    torch.manual_seed(0)
    noise = torch.randn(10, 64, 24, 24)
    lost = torch.stack(list(propagate(noise, perfect[0], Propagation(radius=5)))).argmax(1)
    assert iou(lost[-1], truth[-1]) < 0.2


def test_labels_older_than_previous_are_forgotten_but_for_the_first():
    """Position 0 of frame 3 looks like position 1 of frame 1, whose label comes from frame 0's position 1."""
    near, other, strange = torch.eye(3)
    frames = [(near, other), (near, other + strange), (near, near), (strange, near)]
    features = torch.stack([torch.stack(pair, dim=1)[:, None] for pair in frames])  # (4, 3, 1, 2)
    labels = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    last = {
        previous: list(propagate(features, labels, Propagation(previous=previous, neighbours=1, radius=1)))[3]
        for previous in (1, 2)
    }
    assert torch.equal(last[2][:, 0, 0], torch.tensor([0.0, 1.0]))
    assert torch.equal(last[1][:, 0, 0], torch.tensor([0.75, 0.25]))  # like none of what is kept: the mean of all
