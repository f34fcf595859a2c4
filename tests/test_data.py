"""The hand-over from DALI to torch: no copy but the concatenation, and the settings that reach the pipeline."""

import numpy as np
import pytest
import torch

from clever_fast import data
from clever_fast.accelerator import Accelerator
from clever_fast.data import PretrainingBatches
from clever_fast.options import Execution
from clever_fast.pipelines import pretraining
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.pipelines.pretraining import PretrainingLoader
from tests.recipes import small

CPU = Execution(device="cpu", precision="fp32", threads=1, prefetch=3, hw_decoder_load=0.5, preallocate=True)


@pytest.fixture
def manifest(images):
    return open_manifest(images)


def test_crops_are_copied_by_the_concatenation_alone(manifest, monkeypatch):
    made, handed = [], []
    original, concatenate = PretrainingLoader.__iter__, torch.cat

    def watched(self):
        for indices, views in original(self):
            made.extend(view.as_tensor().data_ptr() for view in views)
            yield indices, views

    monkeypatch.setattr(PretrainingLoader, "__iter__", watched)
    monkeypatch.setattr(torch, "cat", lambda crops: handed.extend(x.data_ptr() for x in crops) or concatenate(crops))
    batches = PretrainingBatches(manifest, small(), Accelerator.from_execution(CPU))
    batch = next(iter(batches))
    batches.close()
    assert len(made) == 4
    assert handed == made
    assert batch.global_crops.is_contiguous(memory_format=torch.channels_last)


def test_on_a_gpu_dali_s_stream_waits_for_the_copy(monkeypatch):
    """Else it would fill the crops' memory again before torch's stream, which is behind the host, has read it."""
    order = []

    class OnGpu(torch.Tensor):
        is_cuda = True

    class View:
        """A TensorListGPU and its tensor."""

        stream = 0x5A

        def as_tensor(self):
            return self

        def __dlpack__(self, *, stream):
            order.append(("handed over", stream))
            return torch.ones(2, 8, 8, 3).__dlpack__()

    class Stream:
        def __init__(self, pointer, device):
            self.pointer = pointer

        def wait_stream(self, other):
            order.append((self.pointer, "waits for", other))

    def cat(crops):
        order.append("copied")
        return torch.Tensor.as_subclass(concatenate(crops), OnGpu)

    concatenate = torch.cat
    monkeypatch.setattr(torch, "cat", cat)
    monkeypatch.setattr(torch.cuda, "ExternalStream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "torch's")
    assert data._crop_major([View(), View()]).shape == (4, 3, 8, 8)
    assert order == [("handed over", -1)] * 2 + ["copied", (0x5A, "waits for", "torch's")]


def test_crops_are_crop_major(manifest):
    batches = PretrainingBatches(manifest, small(), Accelerator.from_execution(CPU))
    batch = next(iter(batches))
    batches.close()
    loader = PretrainingLoader(manifest, small().views, seed=0, batch_size=8, dtype="float32")
    _, views = next(iter(loader))
    crops = [torch.from_dlpack(view.as_tensor()).permute(0, 3, 1, 2) for view in views]
    assert torch.equal(batch.global_crops[8:], crops[1])
    assert torch.equal(batch.local_crops[:8], crops[2])
    loader.close()


def test_the_pipeline_gets_the_execution_s_settings(manifest, monkeypatch):
    options = {}
    monkeypatch.setattr(pretraining, "pretraining_pipeline", lambda *_, **given: options.update(given) or Ready())
    batches = PretrainingBatches(manifest, small(), Accelerator.from_execution(CPU))
    batches.loader._build()
    assert (options["prefetch"], options["hw_decoder_load"], options["affinity"]) == (3, 0.5, False)
    width, height = options["preallocate"]
    assert (manifest.sizes <= (width + 1, height + 1)).all(axis=1).mean() > 0.9
    assert (width, height) <= tuple(manifest.sizes.max(0))


class Ready:
    def build(self): ...


def test_the_pipeline_runs_on_the_stream_that_will_read_the_crops(manifest):
    streams, asked = [], iter(["first", "second"])

    class Recording(Ready):
        def run(self, stream):
            streams.append(stream)
            return ()

    loader = PretrainingLoader(manifest, small().views, seed=0, batch_size=8, stream=lambda: next(asked))
    loader._pipeline = Recording()
    batches = iter(loader)
    assert np.array_equal(next(batches)[0], loader.sampler.indices(0))
    next(batches)
    assert streams == ["first", "second"]
    assert data._stream(torch.device("cpu")) is None
