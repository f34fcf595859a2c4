"""The pretraining loader: what a crop depends on and what it does not, files that break, memory, the GPU graph."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from clever_fast.benchmarks.checks import alone, parity, references
from clever_fast.errors import UserError
from clever_fast.pipelines import decoding
from clever_fast.pipelines.augmentations import (
    ColorJitter,
    Elastic,
    GaussianBlur,
    Grayscale,
    RandomResizedCrop,
    Rotation,
    Solarize,
)
from clever_fast.pipelines.decoding import find_broken
from clever_fast.pipelines.loader_options import LoaderOptions
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.parameters import Sampler
from clever_fast.pipelines.policies import BAUG, CAUG, CAUG_PLUS, MOCO_CAUG, POLICIES, Policy
from clever_fast.pipelines.pretraining import MEAN, STD, PretrainingLoader
from clever_fast.pipelines.view_batches import view_pipeline
from clever_fast.pipelines.views import View, by_crop
from tests.images import encode, photograph

SMALL = {"global_size": 48, "local_size": 24, "local_crops": 2}
POLICY = CAUG_PLUS.with_crops(**SMALL)
COUNT = 20


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    sizes = np.random.default_rng(0).integers(50, 120, (COUNT, 2)).astype(np.int32)
    paths = [f"{i:02d}.jpg" for i in range(COUNT)]
    for seed, (path, (width, height)) in enumerate(zip(paths, sizes)):
        (tmp_path / path).write_bytes(encode(photograph(int(width), int(height), seed)))
    return Manifest(tmp_path, paths, sizes, np.zeros(COUNT, np.int64), ["photograph"], {}, "test")


def batches(manifest: Manifest, steps: int, policy: Policy = POLICY, **options) -> tuple[list, PretrainingLoader]:
    """[(indices, crops as arrays)] of the first steps, and the loader, closed."""
    loader = PretrainingLoader(manifest, policy, **({"seed": 1, "batch_size": 8, "dtype": "float32"} | options))
    found = [(indices, by_crop(views, len(indices))) for indices, views in islice(loader, steps)]
    loader.close()
    return found, loader


def by_sample(found: list) -> dict[int, list[np.ndarray]]:
    return {int(i): [crop[row] for crop in crops] for indices, crops in found for row, i in enumerate(indices)}


def assert_identical(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for index in left:
        for crop, (a, b) in enumerate(zip(left[index], right[index], strict=True)):
            np.testing.assert_array_equal(a, b, err_msg=f"image {index}, crop {crop}")


def test_a_crop_depends_on_neither_batch_nor_processes_nor_threads_nor_start(manifest):
    whole, _ = batches(manifest, 4, options=LoaderOptions(threads=2))
    first_epoch = by_sample(whole[:2])
    assert len(first_epoch) == 16
    assert_identical(by_sample(batches(manifest, 4, batch_size=4, options=LoaderOptions(threads=1))[0]), first_epoch)
    ranks = [by_sample(batches(manifest, 2, rank=rank, world_size=2)[0]) for rank in (0, 1)]
    assert not ranks[0].keys() & ranks[1].keys()
    assert_identical(ranks[0] | ranks[1], first_epoch)
    later, _ = batches(manifest, 2, start_step=1)
    for (expected, crops), (indices, again) in zip(whole[1:3], later):
        np.testing.assert_array_equal(indices, expected)
        for a, b in zip(crops, again):
            np.testing.assert_array_equal(a, b)


def test_epochs_and_seeds_differ(manifest):
    whole = batches(manifest, 4)[0]
    first, second, other = by_sample(whole[:2]), by_sample(whole[2:]), by_sample(batches(manifest, 2, seed=2)[0])
    for another in (second, other):
        for index in first.keys() & another.keys():
            assert all(np.abs(a - b).mean() > 0.05 for a, b in zip(first[index], another[index]))


def test_crops_are_normalised_nhwc_and_stay_valid(manifest):
    loader = PretrainingLoader(manifest, POLICY, seed=1, batch_size=8, dtype="float16")
    stream = iter(loader)
    kept = next(stream)[1]
    copies = [crop.copy() for crop in kept]
    for _ in range(6):
        next(stream)
    loader.close()
    for crop, copy in zip(kept, copies):
        np.testing.assert_array_equal(crop, copy)
    assert [batch.shape for batch in kept] == [(16, 48, 48, 3), (16, 24, 24, 3)]
    single, _ = batches(manifest, 1)
    for crop, exact in zip(by_crop(kept, 8), single[0][1], strict=True):
        np.testing.assert_allclose(crop.astype(np.float32), exact, atol=2e-3)
        pixels = exact * STD + MEAN
        np.testing.assert_allclose(pixels, pixels.round(), atol=1e-3)
        assert pixels.min() > -0.01
        assert pixels.max() < 255.01


def test_all_crops_are_near_those_of_pil_and_torchvision():
    for policy in POLICIES.values():
        assert parity.whole_views(policy, count=2).mean < 3  # the clamps inside torchvision's jitter; see the docs


def test_policies_have_the_published_operations_in_order():
    color, gray = ColorJitter(0.4, 0.4, 0.2, 0.1, 0.8), Grayscale(0.2)
    tails = ((GaussianBlur(1.0),), (GaussianBlur(0.1), Solarize(0.2)), (GaussianBlur(0.5),))
    geometry = {"baug": (), "caug": (Rotation(90.0),), "caug_plus": (Rotation(90.0), Elastic(100.0, 0.5))}
    assert POLICIES.keys() == geometry.keys() | {f"moco_{name}" for name in geometry}
    moco = (ColorJitter(0.4, 0.4, 0.4, 0.1, 0.8), Grayscale(0.2), GaussianBlur(0.5, (0.1, 2.0)))
    for name, head in geometry.items():
        two = View(1, 224, (0.2, 1.0), (*moco, *head), "bilinear")
        assert POLICIES[f"moco_{name}"].views == (two, two)
        policy = POLICIES[name]
        assert all(view.interpolation == "bicubic" for view in policy.views)
        assert [view.augmentations for view in policy.views] == [(*head, color, gray, *tail) for tail in tails]
        assert [(v.count, v.size, v.scale) for v in policy.views] == [
            (1, 224, (0.4, 1.0)), (1, 224, (0.4, 1.0)), (8, 96, (0.05, 0.4)),
        ]  # fmt: skip


def test_every_policy_makes_other_pixels(manifest):
    found = [by_sample(batches(manifest, 1, policy.with_crops(**SMALL))[0]) for policy in (BAUG, CAUG, CAUG_PLUS)]
    for index in found[0]:
        for crops in zip(*(crops[index] for crops in found)):
            assert np.abs(crops[0] - crops[1]).mean() > 0.05
    changed = [np.abs(a - b).mean() > 0.01 for i in found[1] for a, b in zip(found[1][i], found[2][i])]
    assert np.mean(changed) > 0.2  # half the samples are deformed, and the colours' draws move by the elastic's


@pytest.mark.parametrize("policy", [CAUG, MOCO_CAUG], ids=lambda policy: policy.name)
def test_no_local_crops(manifest, policy):
    (_, crops), *_ = batches(manifest, 1, policy.with_crops(global_size=32, local_size=16, local_crops=0))[0]
    assert [crop.shape for crop in crops] == [(8, 32, 32, 3)] * 2


def test_a_policy_without_local_crops_says_so():
    with pytest.raises(UserError, match=r"moco_caug makes no local crops.*local_crops 0, not 8"):
        MOCO_CAUG.with_crops(global_size=32, local_size=16, local_crops=8)


def test_the_order_of_the_augmentations_is_that_of_the_tuple(manifest):
    """A blur before the rotation leaves the black corners' edges sharp, one after it does not."""
    crops = []
    for order in ((GaussianBlur(1.0, (2.0, 2.0)), Rotation(90.0)), (Rotation(90.0), GaussianBlur(1.0, (2.0, 2.0)))):
        view = View(1, 64, (0.5, 1.0), order, "bilinear")
        ((indices, (made,)),), loader = batches(manifest, 1, Policy("two", (view,)))
        (drawn,) = loader.sampler.parameters(indices, 0)
        crops.append(made)
        for row, index in enumerate(indices):
            picture = Image.open(manifest.root / manifest.paths[index])
            theirs = references.whole_crop(picture, view, alone.row(drawn, row), np.random.default_rng(0), None)
            assert np.abs(made[row] * STD + MEAN - theirs).mean() < 1.5  # PIL blurs by boxes
    assert np.abs(crops[0] - crops[1]).mean() * np.mean(STD) > 2


def test_a_single_view_without_augmentations_is_torchvisions_crop(manifest):
    crop = RandomResizedCrop((0.3, 1.0))
    (indices, (views,)), *_ = batches(manifest, 1, Policy("crop", (View(1, 24, crop.scale),)))[0]
    drawn = Sampler(manifest.sizes, (View(1, 24, crop.scale),), seed=1, batch_size=8).parameters(indices, 0)[0]
    for view, index, start, end in zip(views, indices, drawn["crop_start"], drawn["crop_end"]):
        picture = tv.pil_to_tensor(Image.open(manifest.root / manifest.paths[index]))
        theirs = references.crop(picture, start.astype(int), end.astype(int), 24).permute(1, 2, 0)
        np.testing.assert_allclose(view * STD + MEAN, theirs, atol=1e-3)


def test_files_that_broke_are_replaced_by_the_next_readable_ones(manifest):
    sound = by_sample(batches(manifest, 2)[0])
    order = [int(i) for step in range(2) for i in batches(manifest, 2)[0][step][0]]
    whole = (manifest.root / manifest.paths[order[1]]).read_bytes()
    (manifest.root / manifest.paths[order[1]]).write_bytes(whole[: len(whole) // 2])
    (manifest.root / manifest.paths[order[6]]).write_bytes(b"<html><body>404</body></html>")
    (manifest.root / manifest.paths[order[12]]).unlink()
    gone = {order[1], order[6], order[12]}
    found, loader = batches(manifest, 2)
    assert [int(i) for indices, _ in found for i in indices] == order
    assert loader.replaced == {
        manifest.paths[order[1]]: "cannot be decoded",
        manifest.paths[order[6]]: "cannot be decoded",
        manifest.paths[order[12]]: "the file is gone",
    }
    crops = by_sample(found)
    assert_identical({i: c for i, c in crops.items() if i not in gone}, {i: sound[i] for i in sound if i not in gone})
    for index in gone:
        substitute = index
        while substitute in gone:
            substitute = (substitute + 1) % COUNT
        # the same numbers on the other image: a manifest that names it in the broken one's place
        paths, sizes = list(manifest.paths), manifest.sizes.copy()
        paths[index], sizes[index] = paths[substitute], sizes[substitute]
        others = [substitute if row in gone - {index} else row for row in range(COUNT)]
        paths = [paths[row] for row in others]
        stand_in = replace(manifest, paths=paths, sizes=sizes)
        assert_identical({index: crops[index]}, {index: by_sample(batches(stand_in, 2)[0])[index]})
    resumed, _ = batches(manifest, 1, start_step=1)
    assert_identical(by_sample(resumed), {i: crops[i] for i in order[8:]})


def test_a_folder_of_which_nothing_is_left_ends_the_run(manifest):
    for path in manifest.paths:
        (manifest.root / path).unlink()
    with pytest.raises(UserError, match="no readable image"):
        batches(manifest, 1, batch_size=20)


def test_broken_files_are_told_from_sound_ones(manifest):
    files = {i: manifest.root / path for i, path in enumerate(manifest.paths[:6])}
    files[2].write_bytes(files[2].read_bytes()[:-2])
    files[5].write_bytes(b"")
    files[4].unlink()

    def read(row: int) -> bytes:
        return files[row].read_bytes()

    assert find_broken(read, files, None) == {2: "cannot be decoded", 4: "the file is gone", 5: "the file is empty"}
    assert find_broken(read, [], None) == {}


def test_a_gpu_that_decodes_nothing_breaks_no_file(manifest, monkeypatch):
    """Out of memory, a GPU refuses every image; it is asked only where the CPU finds no reason."""
    on_cpu, asked = decoding._undecodable, []
    refused = [0, 1, 2, 3]

    def undecodable(images, device_id):
        asked.append(device_id)
        return on_cpu(images, None) if device_id is None else refused

    monkeypatch.setattr(decoding, "_undecodable", undecodable)
    assert find_broken(manifest.read, range(4), 0) == {}
    refused = [2]  # which nvJPEG cannot read
    assert find_broken(manifest.read, range(4), 0) == {2: "cannot be decoded"}
    (manifest.root / manifest.paths[1]).write_bytes(b"no image")
    asked.clear()
    assert find_broken(manifest.read, range(4), 0) == {1: "cannot be decoded"}
    assert asked == [None]


def test_an_error_that_no_file_explains_is_not_hidden(manifest):
    policy = Policy("impossible", (View(1, 10**6, (0.4, 1.0)),))  # a view of 3 TB
    with pytest.raises((RuntimeError, MemoryError)):
        batches(manifest, 1, policy)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat(manifest):
    torch.multiprocessing.spawn(stays_flat, (manifest,))  # a process of its own: this one has others' memory to return


def stays_flat(_rank: int, manifest: Manifest) -> None:
    """A leak grows in every interval; what threads and allocators keep comes once, whenever the machine lets them."""
    loader = PretrainingLoader(manifest, POLICY, seed=1, batch_size=8)
    stream = iter(loader)

    def steps(count: int) -> None:
        for _ in range(count):
            next(stream)

    steps(40)
    assert min(growth(lambda: steps(50)) for _ in range(3)) < 4e6  # a batch kept in each step would take 60 MB
    loader.close()

    def pipelines() -> None:
        for _ in range(2):  # one after the other
            batches(manifest, 2)

    pipelines()
    assert min(growth(pipelines) for _ in range(4)) < 8e6


def growth(work: Callable[[], None]) -> float:
    """Bytes of resident memory that come with some work."""
    before = _resident()
    work()
    return _resident() - before


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_gpu_graph_is_constructed_without_a_gpu(policy):
    assert (
        view_pipeline(
            policy.views, lambda info: None, batch_size=8, options=LoaderOptions(threads=2), device_id=0
        ).device_id
        == 0
    )


def test_constructing_checks_the_operators_arguments(monkeypatch):
    from clever_fast.pipelines.dali import fn

    resize = fn.resize
    monkeypatch.setattr(fn, "resize", lambda images, roi_end, **options: resize(images, roi_ende=roi_end, **options))
    with pytest.raises(KeyError, match="roi_ende"):
        view_pipeline(CAUG.views, lambda info: None, batch_size=8, options=LoaderOptions(threads=2), device_id=0)


def test_without_dali_the_values_import_and_the_loaders_name_the_extra():
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nvidia":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import clever_fast.pipelines.views, clever_fast.pipelines.policies, clever_fast.pipelines.parameters
import clever_fast.pipelines.manifest
from clever_fast.errors import UserError
for name in ("pretraining", "evaluation", "decoding", "view_batches"):
    try:
        __import__(f"clever_fast.pipelines.{name}")
    except UserError as error:
        assert "clever_fast[cuda12]" in str(error), error
    else:
        raise SystemExit(f"{name} imported")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
