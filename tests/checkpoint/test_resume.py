"""The checkpoint a run goes on from."""

import os

import pytest
import torch

from clever_fast import checkpoint
from clever_fast.checkpoint.resume import damage, newest
from clever_fast.errors import UserError


def save(folder, *steps, keep=3):
    for step in steps:
        checkpoint.save(folder, {"format": checkpoint.FORMAT, "step": step, "weight": torch.ones(1000)}, keep=keep)


def test_the_newest_is_found(tmp_path):
    assert newest(tmp_path) is None
    save(tmp_path, 1, 2)
    assert newest(tmp_path) == tmp_path / checkpoint.NEWEST
    assert damage(newest(tmp_path)) is None


def test_the_next_newest_is_found_and_the_broken_are_renamed(tmp_path, capsys):
    save(tmp_path, 8, 9, 10)
    os.truncate(tmp_path / checkpoint.NEWEST, 100)
    (tmp_path / "checkpoint-000000009.pth").write_bytes(b"")
    assert checkpoint.load(newest(tmp_path))["step"] == 8
    said = capsys.readouterr().out.splitlines()
    assert ["checkpoint.pth is broken" in said[0], "checkpoint-000000009.pth is broken" in said[1]] == [True, True]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint.pth.broken", "checkpoint-000000009.pth.broken", "checkpoint-000000008.pth"}
    save(tmp_path, 9)
    assert checkpoint.load(newest(tmp_path))["step"] == 9


def test_it_is_found_between_keeping_the_old_and_renaming_the_new(tmp_path):
    save(tmp_path, 8, 9)
    (tmp_path / checkpoint.NEWEST).rename(tmp_path / "checkpoint-000000009.pth")
    assert checkpoint.load(newest(tmp_path))["step"] == 9


def test_nothing_but_broken_ones_is_an_error_and_not_a_new_beginning(tmp_path):
    save(tmp_path, 1, keep=1)
    os.truncate(tmp_path / checkpoint.NEWEST, 100)
    with pytest.raises(UserError, match=r"checkpoint\.pth is broken .* remove it to begin anew"):
        newest(tmp_path)
    assert (tmp_path / checkpoint.NEWEST).exists()


def test_any_byte_of_a_tensor_that_changed_is_noticed(tmp_path):
    save(tmp_path, 1)
    path = tmp_path / checkpoint.NEWEST
    content = path.read_bytes()
    begin = content.index(torch.ones(1000).numpy().tobytes())
    for place in (begin, begin + 1999, begin + 3999):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert "checksum" in damage(path)


def test_a_newest_that_broke_during_the_run_is_not_kept(tmp_path):
    save(tmp_path, 1)
    os.truncate(tmp_path / checkpoint.NEWEST, 100)
    save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_what_a_killed_write_left_is_removed(tmp_path):
    (tmp_path / checkpoint.TEMPORARY).write_bytes(bytes(100))
    checkpoint.prepare_folder(tmp_path, 0, 1)
    assert list(tmp_path.iterdir()) == []
