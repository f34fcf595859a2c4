"""What a run may be fed from: a folder or its shards, and not from other data than it began with."""

import shutil

import pytest

from clever_fast.cli import main
from clever_fast.data import PretrainingBatches
from clever_fast.errors import UserError
from clever_fast.options import Run
from clever_fast.train import train
from tests.images import encode, photograph
from tests.test_train import CPU, assert_same_state, losses


def test_a_run_goes_on_from_the_shards_of_its_folder_bit_for_bit(small, images, tmp_path):
    assert main(["shard", "build", str(images), str(tmp_path / "shards")]) == 0
    train(small(), CPU, Run(data=images, folder=tmp_path / "folder", log_every=1, stop_after=4))  # an epoch is 3 steps
    train(small(), CPU, Run(data=images, folder=tmp_path / "mixed", log_every=1, stop_after=2))
    train(small(), CPU, Run(data=tmp_path / "shards", folder=tmp_path / "mixed", log_every=1, stop_after=4))
    assert_same_state(tmp_path / "folder", tmp_path / "mixed")
    assert losses(tmp_path / "folder") == losses(tmp_path / "mixed")


def test_a_folder_that_lost_or_gained_files_is_refused_until_it_is_as_before(small, images, tmp_path, fault):
    data, run = tmp_path / "data", Run(data=tmp_path / "data", folder=tmp_path / "run", log_every=1, stop_after=1)
    shutil.copytree(images, data)
    train(small(), CPU, run)
    (data / "train/bars/new.jpg").write_bytes(encode(photograph()))
    with pytest.raises(UserError, match="trained on 24 readable images of 3 classes, now there are 25 "):
        train(small(), CPU, run)
    (data / "train/bars/0.jpg").rename(tmp_path / "0.jpg")
    with pytest.raises(UserError, match="now there are 24 readable images of 3 classes, other ones: restore the data"):
        train(small(), CPU, run)
    (data / "train/bars/new.jpg").unlink()
    (tmp_path / "0.jpg").rename(data / "train/bars/0.jpg")
    train(small(), CPU, Run(data=data, folder=tmp_path / "run", log_every=1, stop_after=2))
    fault(
        "between two starts the data folder gained a file, or lost one and gained another",
        "refused with both counts; once the folder was as before the same command went on",
        "nothing",
    )


def test_files_that_go_and_come_while_a_run_is_fed(small, images, tmp_path, capsys, monkeypatch, fault):
    """What is gone is replaced and reported, what is new waits for another run."""
    data = tmp_path / "data"
    shutil.copytree(images, data)

    class Changing(PretrainingBatches):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            (data / "train/bars/3.jpg").unlink()
            (data / "train/bars/new.jpg").write_bytes(encode(photograph()))

    monkeypatch.setattr("clever_fast.train.PretrainingBatches", Changing)
    train(small(epochs=1), CPU, Run(data=data, folder=tmp_path / "run", log_every=1))
    shown = capsys.readouterr().out
    assert "bars/3.jpg (the file is gone)" in shown
    assert "new.jpg" not in shown
    fault(
        "the data folder loses a file and gains one while a run reads it",
        "the next readable image takes the place of the one that is gone, which is reported with the reason; the new "
        "one waits for another run",
        "1 image of 24",
    )
