"""The hand-over from the loaders to torch: no copy, what a GPU does to its crops, the settings that reach DALI."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clever_fast import data
from clever_fast.accelerator import Accelerator
from clever_fast.benchmarks.checks.alone import row
from clever_fast.data import PretrainingBatches
from clever_fast.options import Execution
from clever_fast.pipelines import view_batches
from clever_fast.pipelines.augmentations import Elastic
from clever_fast.pipelines.device_steps import device_steps
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.pipelines.policies import POLICIES
from clever_fast.pipelines.pretraining import STD, PretrainingLoader
from clever_fast.pipelines.view_batches import DeviceView
from clever_fast.pipelines.views import Canvas, View, by_crop
from tests.recipes import siamese, small

CPU = Execution(device="cpu", precision="fp32", threads=1, prefetch=3, hw_decoder_load=0.5, preallocate=True)


@pytest.fixture
def manifest(images):
    return open_manifest(images)


def test_on_a_cpu_a_batch_is_the_loader_s_own_memory(manifest, monkeypatch):
    made, original = [], PretrainingLoader.__iter__

    def watched(self):
        for indices, views in original(self):
            made.extend(view.ctypes.data for view in views)
            yield indices, views

    monkeypatch.setattr(PretrainingLoader, "__iter__", watched)
    batches = PretrainingBatches(manifest, small(), Accelerator.from_execution(CPU))
    batch = next(iter(batches))
    batches.close()
    assert [batch.global_crops.data_ptr(), batch.local_crops.data_ptr()] == made
    assert batch.global_crops.is_contiguous(memory_format=torch.channels_last)


def test_crops_are_crop_major(manifest):
    batches = PretrainingBatches(manifest, small(), Accelerator.from_execution(CPU))
    batch = next(iter(batches))
    batches.close()
    loader = PretrainingLoader(manifest, small().views, seed=0, batch_size=8, dtype="float32")
    _, views = next(iter(loader))
    crops = [torch.from_numpy(crop).permute(0, 3, 1, 2) for crop in by_crop(views, 8)]
    assert torch.equal(batch.global_crops[8:], crops[1])
    assert torch.equal(batch.local_crops[:8], crops[2])
    loader.close()


def test_global_and_local_crops_of_one_size_are_told_apart(manifest):
    recipe = replace(small(), local_size=small().global_size)
    batches = PretrainingBatches(manifest, recipe, Accelerator.from_execution(CPU))
    batch = next(iter(batches))
    batches.close()
    assert (len(batch.global_crops), len(batch.local_crops)) == (16, 8 * recipe.local_crops)


class Handed:
    """A TensorListGPU and its tensor."""

    stream = 0x5A

    def __init__(self, crops, order):
        self.crops, self.order = torch.from_numpy(crops), order

    def as_tensor(self):
        return self

    def __dlpack__(self, *, stream):
        self.order.append(("handed over", stream))
        return self.crops.__dlpack__()


class Stream:
    """The CUDA stream of an address; `order` is the test's."""

    def __init__(self, pointer, order):
        self.pointer, self.order = pointer, order

    def wait_stream(self, other):
        self.order.append((self.pointer, "waits for", other))


def finish(views, monkeypatch, order, dtype="float32"):
    """A `Finish` that takes this CPU for a GPU."""
    made = data.Finish(views, 0, SimpleNamespace(device=torch.device("cpu"), input_dtype=dtype))
    made._prepare_elastic(views, 0)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda pointer, device: Stream(pointer, order))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "torch's")
    return made._on_device


def test_on_a_gpu_dali_s_stream_waits_for_the_ops(monkeypatch):
    """Else it would fill the crops' memory again before torch's stream, which is behind the host, has read it."""
    order, photometry = [], data.photometry
    monkeypatch.setattr(data, "photometry", lambda *args, **out: order.append("finished") or photometry(*args, **out))
    views = [View(1, 8, (0.5, 1.0), (Elastic(),)), View(1, 8, (0.5, 1.0))]
    steps = [("photometry", np.array([[1, 1, 1, 0, 0, 0, 0]] * 2, np.float32))]
    handed = [DeviceView(Handed(np.ones((2, 8, 8, 3), np.uint8), order), steps) for _ in views]
    (batch,) = finish(views, monkeypatch, order)(handed)
    assert batch.shape == (4, 3, 8, 8)
    assert order == [("handed over", -1)] * 2 + ["finished"] * 2 + [(0x5A, "waits for", "torch's")]


@pytest.mark.parametrize("policy", ["caug_plus", "moco_caug_plus"])
def test_both_ways_make_the_same_crops(manifest, policy, monkeypatch):
    """The loader of a CPU, and what a GPU would be handed and do with it, from the same regions."""
    policy, n = POLICIES[policy].with_crops(global_size=96, local_size=48, local_crops=2 * (policy == "caug_plus")), 6
    loader = PretrainingLoader(manifest, policy, seed=0, batch_size=n, dtype="float32")
    indices, views = next(iter(loader))
    drawn = loader.sampler.parameters(indices, 0)
    loader.close()
    pictures, crops = [np.asarray(Image.open(manifest.root / manifest.paths[i])) for i in indices], iter(drawn)
    handed = []
    for view in policy.views:
        parameters = [next(crops) for _ in range(view.count)]
        cut = np.array(
            [
                [view.crop.on_cpu(picture, row(own, i), Canvas(view.size)) for own in parameters]
                for i, picture in enumerate(pictures)
            ]
        )  # (n, count, S, S, 3)
        joined = {name: np.concatenate([own[name] for own in parameters]) for name in parameters[0]}
        steps = [(step.op, step.parameters(joined, view.count * n)) for step in device_steps(view.augmentations)]
        handed.append(DeviceView(Handed(cut if view.count > 1 else cut[:, 0], []), steps))
    found = finish(policy.views, monkeypatch, [])(handed)
    for ours, theirs in zip(found, views, strict=True):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        for crop, expected in zip(ours.permute(0, 2, 3, 1).numpy(), theirs, strict=True):
            # OpenCV's hue has 256 steps, and its rotation may take the other one of two pixels that are as near
            assert np.abs(crop - expected).mean() * np.mean(STD) < 3


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", [small(), siamese()], ids=lambda recipe: recipe.policy.name)
def test_a_gpu_s_crops_are_near_the_cpu_s(manifest, recipe):
    executions = [Execution(device=kind, precision="fp32") for kind in ("cpu", "cuda")]
    made = [PretrainingBatches(manifest, recipe, Accelerator.from_execution(execution)) for execution in executions]
    for on_cpu, on_gpu, _ in zip(*made, range(4)):
        for ours, theirs in zip(on_cpu[:2], on_gpu[:2]):
            assert ours is theirs or (ours - theirs.cpu()).abs().mean() * np.mean(STD) < 3
    for batches in made:
        batches.close()


def test_the_pipeline_gets_the_execution_s_settings(manifest, monkeypatch):
    options = {}
    monkeypatch.setattr(view_batches, "view_pipeline", lambda *_, **given: options.update(given) or Pipeline())
    batches = PretrainingBatches(manifest, small(), Accelerator.from_execution(CPU))
    with pytest.raises(NotImplementedError):
        next(iter(batches))
    assert (options["options"].prefetch, options["options"].hw_decoder_load, options["options"].affinity) == (
        3,
        0.5,
        False,
    )
    width, height = options["reserve"]
    assert (manifest.sizes <= (width + 1, height + 1)).all(axis=1).mean() > 0.9
    assert (width, height) <= tuple(manifest.sizes.max(0))


class Pipeline:
    def build(self): ...

    def run(self, *stream):
        raise NotImplementedError


def test_the_pipeline_runs_on_the_stream_that_will_read_the_crops(monkeypatch):
    streams, asked = [], iter(["first", "second"])

    class Recording(Pipeline):
        def run(self, stream):
            streams.append(stream)
            return ()

    monkeypatch.setattr(view_batches, "view_pipeline", lambda *_, **given: Recording())
    options = {"seed": 0, "options": CPU, "dtype": "float32", "device_id": 0, "stream": lambda: next(asked)}
    batches = view_batches.ViewBatches([], iter(()), **options)
    batches._drawn.extend([[], []])  # begun by DALI
    assert [next(batches), next(batches)] == [[], []]
    assert streams == ["first", "second"]
    assert data._stream(torch.device("cpu")) is None


def test_without_local_crops_a_batch_has_none(manifest):
    batches = PretrainingBatches(manifest, small(local_crops=0), Accelerator.from_execution(CPU))
    batch = next(iter(batches))
    batches.close()
    assert batch.local_crops is None
    assert len(batch.global_crops) == 16
