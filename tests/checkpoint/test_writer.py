"""Checkpoints in the background: what was there when they began, one at a time, and errors that are told."""

import threading

import pytest
import torch

from clever_fast import checkpoint
from clever_fast.checkpoint.writer import Writer


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def writer(tmp_path, said):
    writer = Writer(tmp_path, 1, said.append)
    yield writer
    writer.close()


def state(tensor: torch.Tensor, step: int = 1) -> dict:
    groups = [{"lr": 0.1, "params": [0, 1]}]
    return {"format": 1, "step": step, "optimizer": {"state": {0: {"m": tensor}}, "param_groups": groups}}


def test_what_is_written_is_what_was_there_at_the_beginning(writer, tmp_path, monkeypatch):
    go, original = threading.Event(), checkpoint.save

    def late(*arguments, **options):
        go.wait(10)
        original(*arguments, **options)

    monkeypatch.setattr(checkpoint, "save", late)
    tensor, groups = torch.arange(5.0), state(torch.zeros(1))["optimizer"]["param_groups"]
    content = state(tensor) | {"groups": groups}
    writer.begin(content)
    tensor.zero_()
    groups[0]["lr"] = 7.0
    go.set()
    writer.wait()
    saved = checkpoint.load(tmp_path / checkpoint.NEWEST)
    assert saved["optimizer"]["state"][0]["m"].tolist() == [0, 1, 2, 3, 4]
    assert saved["groups"][0]["lr"] == 0.1


def test_one_at_a_time_and_in_order(writer, tmp_path, monkeypatch):
    running, most, order, original = [], [], [], checkpoint.save

    def watched(folder, content, **options):
        running.append(1)
        most.append(len(running))
        original(folder, content, **options)
        order.append(content["step"])
        running.pop()

    monkeypatch.setattr(checkpoint, "save", watched)
    for step in range(6):
        writer.begin(state(torch.full((100_000,), float(step)), step))
    writer.wait()
    assert order == list(range(6))
    assert max(most) == 1
    saved = checkpoint.load(tmp_path / checkpoint.NEWEST)
    assert saved["step"] == saved["optimizer"]["state"][0]["m"][0] == 5


def test_the_last_one_does_not_wait_for_one_on_its_way(writer, said, tmp_path, monkeypatch):
    writer.write(state(torch.zeros(3), 1))
    original, begun, there = torch.save, threading.Event(), []

    def slow(content, file):
        if content["step"] == 2:
            file.write(b"half of it")
            begun.set()
            assert writer._given_up.wait(10)
        there.append((content["step"], checkpoint.load(tmp_path / checkpoint.NEWEST)["step"]))
        original(content, file)

    monkeypatch.setattr(torch, "save", slow)
    writer.begin(state(torch.zeros(3), 2))
    assert begun.wait(10)
    writer.write(state(torch.zeros(3), 3))
    assert there == [(2, 1), (3, 1)]  # the one before stays until the last is whole
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NEWEST]
    assert checkpoint.load(tmp_path / checkpoint.NEWEST)["step"] == 3
    assert not said
    writer.begin(state(torch.zeros(3), 4))
    writer.wait()
    assert checkpoint.load(tmp_path / checkpoint.NEWEST)["step"] == 4


def test_the_memory_of_a_copy_serves_the_next(writer):
    tensor = torch.zeros(10)
    writer.begin(state(tensor))
    writer.wait()
    place = writer._copy["optimizer"]["state"][0]["m"].data_ptr()
    writer.begin(state(tensor + 1))
    writer.wait()
    assert writer._copy["optimizer"]["state"][0]["m"].data_ptr() == place
    writer.begin(state(torch.ones(11)))  # of another shape: memory of its own
    writer.wait()
    assert writer._copy["optimizer"]["state"][0]["m"].shape == (11,)


def test_the_order_in_memory_stays(writer, tmp_path):
    """Or the fused optimizers would pair weights with the moments of others."""
    tensor = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    writer.begin(state(tensor))
    writer.wait()
    saved = checkpoint.load(tmp_path / checkpoint.NEWEST)["optimizer"]["state"][0]["m"]
    assert torch.equal(saved, tensor)
    assert saved.stride() == tensor.stride()


def test_errors_in_the_background_are_said_and_in_the_foreground_raised(writer, said, tmp_path, monkeypatch):
    writer.write(state(torch.zeros(3), 1))

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    writer.begin(state(torch.zeros(3), 2))
    writer.wait()
    assert len(said) == 1
    assert "No space left on device; training goes on, the checkpoint before stays" in said[0]
    with pytest.raises(OSError, match="No space left"):
        writer.write(state(torch.zeros(3), 3))
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / checkpoint.NEWEST)["step"] == 1
    writer.begin(state(torch.zeros(3), 4))
    writer.wait()
    assert checkpoint.load(tmp_path / checkpoint.NEWEST)["step"] == 4


@pytest.mark.gpu
def test_a_gpus_state_is_copied_to_pinned_memory(writer, tmp_path):
    tensor = torch.arange(1_000_000.0, device="cuda")
    writer.begin(state(tensor))
    assert writer._copy["optimizer"]["state"][0]["m"].is_pinned()
    tensor.zero_()
    writer.wait()
    assert torch.equal(checkpoint.load(tmp_path / checkpoint.NEWEST)["optimizer"]["state"][0]["m"], torch.arange(1e6))
