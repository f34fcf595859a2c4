"""What a GPU's loader costs its host, on a CUDA runtime whose kernels do nothing."""

import shutil

import pytest

from clever_fast.benchmarks.checks import loader_host
from tests.idle_gpu import patch

dali = pytest.importorskip("nvidia.dali.backend_impl")


@pytest.fixture(scope="module")
def record():
    if not (shutil.which("cc") and shutil.which("nm") and patch.runtime_functions(dali.__file__)):
        pytest.skip("needs cc, nm, and a build of DALI that names its functions")
    return loader_host.run("caug_plus", steps=3, rounds=3)


def test_a_batch_of_128_leaves_the_host_time_for_8000_images_a_second(record):
    assert record["gpu_operators"] == 1 + 10 + 1  # the decoder, a resize for each crop, one stack of the local ones
    assert record["operators"] <= 34
    assert record["launches"] <= 100
    assert record["triton_launches"] == 3 * (1 + 4)  # a view is deformed once and coloured in four launches
    # measured at a third of these; CPU time, which a busy machine stretches
    assert record["cpu_ms"]["executor"] < 16
    assert record["cpu_ms"]["main"] < 16
    assert 0 < record["cpu_ms"]["sampler"] < record["cpu_ms"]["main"]


def test_the_ceiling_is_the_slower_thread_s():
    record = {"batch": 128, "cpu_ms": {"executor": 4.0, "main": 8.0, "sampler": 3.0}}
    assert loader_host.ceiling(record) == 16000
    assert loader_host.ceiling(record | {"cpu_ms": {"executor": 16.0, "main": 8.0}}) == 8000
