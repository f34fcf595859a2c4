"""The sampler: pure functions of (seed, epoch, index, view), and torchvision's distribution of crops."""

import hashlib
import time

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop

from clever_fast.errors import UserError
from clever_fast.pipelines import parameters
from clever_fast.pipelines.augmentations import Elastic, RandomResizedCrop
from clever_fast.pipelines.parameters import Sampler
from clever_fast.pipelines.policies import BAUG, CAUG_PLUS
from clever_fast.pipelines.views import View

SIZES = np.random.default_rng(0).integers(40, 600, (50, 2)).astype(np.int32)


def sampler(**changes) -> Sampler:
    options = {"seed": 3, "batch_size": 8} | changes
    return Sampler(SIZES, options.pop("views", CAUG_PLUS.views), **options)


def assert_same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_an_epoch_holds_every_image_at_most_once_and_drops_the_partial_batch():
    draws = sampler()
    assert draws.steps_per_epoch == 6
    first, second = (np.concatenate([draws.indices(step) for step in range(e * 6, e * 6 + 6)]) for e in (0, 1))
    assert len(first) == len(np.unique(first)) == 48
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, np.concatenate([sampler().indices(step) for step in range(6)]))
    assert not np.array_equal(first[:8], sampler(seed=4).indices(0))


def test_processes_share_the_batch_of_one():
    ranks = [sampler(rank=rank, world_size=4) for rank in range(4)]
    for step in (0, 5, 6, 17):
        np.testing.assert_array_equal(sampler().indices(step), np.concatenate([r.indices(step) for r in ranks]))


@pytest.mark.parametrize(("size", "lengths"), [(16, [16, 16, 16, 2]), (10, [10] * 5), (64, [50])])
@pytest.mark.parametrize("processes", [1, 2])
def test_with_the_partial_batch_every_image_is_seen_once_an_epoch(size, lengths, processes):
    ranks = [sampler(batch_size=size, rank=r, world_size=processes, partial=True) for r in range(processes)]
    assert {rank.steps_per_epoch for rank in ranks} == {len(lengths)}
    seen = []
    for step, total in enumerate(lengths):
        counts = [rank.counts(step) for rank in ranks]
        assert {whole for _, whole in counts} == {total} == {sum(own for own, _ in counts)}
        assert len({len(rank.indices(step)) for rank in ranks}) == 1  # as many for each
        seen += [rank.indices(step)[:own] for rank, (own, _) in zip(ranks, counts)]
    assert sorted(np.concatenate(seen)) == list(range(50))


def test_of_a_batch_smaller_than_the_processes_some_get_an_image_again():
    ranks = [sampler(batch_size=48, rank=rank, world_size=4, partial=True) for rank in range(4)]
    found = [(rank.indices(1).tolist(), rank.counts(1)) for rank in ranks]
    (first, _), (second, _) = found[:2]
    assert found == [(first, (1, 2)), (second, (1, 2)), (first, (0, 2)), (second, (0, 2))]


def test_a_sample_draws_the_same_numbers_in_any_company():
    together = sampler().parameters(np.array([7, 1, 49]), 2)
    alone = sampler(batch_size=2, world_size=2).parameters(np.array([1]), 2)
    for crop, own in zip(together, alone):
        assert_same({name: array[1:2] for name, array in crop.items()}, own)


def test_a_view_does_not_depend_on_how_many_there_are():
    fewer = CAUG_PLUS.with_crops(global_size=224, local_size=96, local_crops=3)
    many, few = (sampler(views=policy.views).parameters(np.arange(4), 1) for policy in (CAUG_PLUS, fewer))
    assert len(many) == 10
    assert len(few) == 5
    for left, right in zip(many, few):
        assert_same(left, right)


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 1}, {"index": 6}])
def test_seed_epoch_and_index_each_change_every_view(other):
    seed, epoch, index = ({"seed": 3, "epoch": 0, "index": 5} | other).values()
    before = sampler().parameters(np.array([5]), 0)
    after = sampler(seed=seed).parameters(np.array([index]), epoch)
    for left, right in zip(before, after):
        assert not np.isclose(left["angle"], right["angle"])
        assert not np.isclose(left["elastic_start"], right["elastic_start"]).any()


def test_views_of_a_sample_are_independent():
    crops = sampler().parameters(np.arange(50), 0)
    correlation = np.corrcoef([crop["angle"] for crop in crops])
    assert np.abs(correlation - np.eye(10)).max() < 0.6  # 50 samples: 0.14 is one standard deviation


def test_a_stand_in_takes_the_numbers_of_the_original_and_its_own_size():
    stood_in = sampler().parameters(np.array([4]), 0, images=np.array([9]))[0]
    original = sampler().parameters(np.array([4]), 0)[0]
    assert_same({"angle": stood_in["angle"]}, {"angle": original["angle"]})
    extent = np.maximum(stood_in["crop_start"], stood_in["crop_end"])[0]
    assert (extent <= SIZES[9][::-1]).all()


def test_a_view_that_draws_more_than_its_share_is_caught():
    with pytest.raises(AssertionError, match="64 are reserved"):
        sampler(views=(View(1, 32, (0.5, 1.0), (Elastic(),) * 4),))


@pytest.mark.parametrize(
    ("options", "said"), [({"batch_size": 51}, "51.*50"), ({"batch_size": 9, "world_size": 2}, "2 processes.*9")]
)
def test_an_impossible_batch_is_refused_with_both_numbers(options, said):
    with pytest.raises(UserError, match=said):
        sampler(**options)


def _torchvision(size: tuple[int, int], scale: tuple[float, float], count: int) -> np.ndarray:
    image = torch.empty(3, size[1], size[0])
    return np.array([TorchvisionCrop.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(count)], float)


def _ours(size: tuple[int, int], scale: tuple[float, float], count: int) -> np.ndarray:
    crop = RandomResizedCrop(scale)
    uniforms = np.random.default_rng(1).random((count, crop.draws))
    region = crop.sample(uniforms, np.tile(size, (count, 1)))
    start, end = (region[name].astype(float) for name in ("crop_start", "crop_end"))
    assert abs((start[:, 1] > end[:, 1]).mean() - 0.5) < 0.03  # mirrored
    return np.concatenate([np.minimum(start, end), np.abs(end - start)], axis=1)


# wide enough for several tries to fail, and so wide that all of them fail; whole, odd and tiny images
@pytest.mark.parametrize("size", [(500, 375), (97, 301), (1000, 30), (30, 1000), (1, 1)])
@pytest.mark.parametrize("scale", [(0.05, 0.4), (0.4, 1.0)])
def test_crops_are_distributed_as_torchvisions(size, scale):
    torch.manual_seed(0)
    count = 3000
    theirs, ours = _torchvision(size, scale, count), _ours(size, scale, count)
    for column, name in enumerate(("top", "left", "height", "width")):
        values = np.unique(np.concatenate([theirs[:, column], ours[:, column]]))
        cdf = [np.searchsorted(np.sort(side[:, column]), values, side="right") / count for side in (theirs, ours)]
        # Kolmogorov-Smirnov: 1.95 sqrt(2 / n) is exceeded once in a thousand times
        assert np.abs(cdf[0] - cdf[1]).max() < 1.95 * np.sqrt(2 / count), name


def test_drawing_costs_less_than_a_twentieth_of_a_millisecond_per_image():
    draws = sampler()
    indices = np.arange(48)
    draws.parameters(indices, 0)
    best = np.inf
    for epoch in range(10):
        start = time.process_time()
        draws.parameters(indices, epoch)
        best = min(best, time.process_time() - start)
    assert best / len(indices) < 0.05e-3


def test_the_reserve_starts_every_view_on_a_philox_block():
    assert parameters.DRAWS % 4 == 0
    block = np.random.Philox(key=[3, 5], counter=[2 * parameters.DRAWS // 4, 0, 1, 0])
    expected = np.random.Generator(block).random(parameters.DRAWS)
    drawn = parameters.generator(3, 5, 1, parameters.SAMPLES).random((10, parameters.DRAWS))[2]
    np.testing.assert_array_equal(drawn, expected)


def test_a_batch_draws_the_numbers_of_a_generator_for_each_image():
    """The numbers of runs that began before a batch was drawn at once; so they resume with the same crops."""
    indices, stream = np.array([7, 0, 49, 7, 2**40]), parameters.PERTURBED
    drawn = parameters.uniforms(2**63 - 1, indices, 5, stream, 10)
    for row, index in zip(drawn, indices):
        bits = np.random.Philox(key=[2**63 - 1, int(index)], counter=[0, 0, 5, stream])
        expected = np.random.Generator(bits).random((10, parameters.DRAWS))
        np.testing.assert_array_equal(row, expected)


def test_parameters_are_those_of_the_first_release():
    """Bit for bit: a run that began then resumes with the same crops."""
    (first, *_, last) = sampler().parameters(np.array([5, 33]), 2)
    digest = hashlib.sha256()
    for crop in (first, last):
        for name in sorted(crop):
            digest.update(name.encode() + np.ascontiguousarray(crop[name]).tobytes())
    assert digest.hexdigest() == "72635ea0f7978eab895eb673b0f062eef478496d4cf2c9a4ed1f1fe77a282d77"


def test_baug_has_no_geometry():
    assert not {"angle", "elastic"} & sampler(views=BAUG.views).parameters(np.array([0]), 0)[0].keys()
