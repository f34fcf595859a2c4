"""The sweep of the GPU's decoder, dry and on a GPU whose kernels do nothing."""

import json
import subprocess
import sys

import pytest

from clever_fast.benchmarks import decoder_sweep


def test_dry_it_names_every_setting_once_and_needs_no_gpu():
    words = [sys.executable, "-m", "clever_fast.benchmarks.decoder_sweep", "--dry"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({json.dumps(row) for row in rows}) == len(rows)
    assert {row["what"] for row in rows} == {"decoder", "loader"}
    assert {0.0, 1.0} <= {row["hw_decoder_load"] for row in rows}
    assert all(set(row) == {"what", "size", "threads", "hw_decoder_load"} for row in rows)


@pytest.mark.parametrize(("cores", "threads"), [(1, {1}), (8, {4, 8}), (64, {4, 16})])
def test_threads_are_no_more_than_cores(cores, threads):
    assert {setting["threads"] for setting in decoder_sweep.settings(cores)} == threads


def test_a_rate_counts_the_images_of_a_batch():
    calls = []
    found = decoder_sweep.rate(lambda: calls.append(0), seconds=0.05)
    assert found["images_per_s"] > decoder_sweep.BATCH * (len(calls) - 4) / 0.2
    assert found["cpu_ms"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("what", ["decoder", "loader"])
def test_a_setting_runs(images, what):
    pytest.importorskip("nvidia.dali")
    setting = {"what": what, "size": (500, 375), "threads": 2, "hw_decoder_load": 0.65}
    decoder_sweep.BATCH, before = 8, decoder_sweep.BATCH
    try:
        assert getattr(decoder_sweep, what)(images / "train", setting)() is not None
    finally:
        decoder_sweep.BATCH = before
