"""SLURM's variables stand in for torchrun's, and a flag raised by one process is seen by all at the same step."""

import os
import sys

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from clever_fast import distributed
from clever_fast.errors import UserError
from clever_fast.signals import SharedFlag

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE")


@pytest.fixture
def environment(monkeypatch):
    """An environment without any launcher's variables; what is set in it goes away after the test."""
    for name in list(os.environ):
        if name in NAMES or name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    before = dict(os.environ)
    yield monkeypatch
    for name in set(os.environ) - set(before):
        del os.environ[name]


def slurm(environment, tasks="4"):
    values = {"PROCID": "3", "LOCALID": "1", "NTASKS": tasks, "NTASKS_PER_NODE": "2", "JOB_ID": "12345"}
    for name, value in values.items():
        environment.setenv(f"SLURM_{name}", value)
    environment.setenv("SLURM_JOB_NODELIST", "node[07-08]")


def test_slurm_variables_are_adopted(environment, tmp_path):
    slurm(environment)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        f"#!{sys.executable}\nimport sys\nassert sys.argv[-1] == 'node[07-08]'\nprint('node07\\nnode08')"
    )
    scontrol.chmod(0o755)
    environment.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    distributed.adopt_slurm_variables()
    assert [os.environ[n] for n in NAMES] == ["3", "1", "4", "node07", str(20000 + 12345), "2"]
    assert (distributed.rank(), distributed.local_rank(), distributed.world_size()) == (3, 1, 4)
    assert not distributed.is_main()


def test_torchruns_variables_win_and_one_task_needs_none(environment):
    slurm(environment, tasks="1")
    distributed.adopt_slurm_variables()
    assert "RANK" not in os.environ
    slurm(environment)
    environment.setenv("RANK", "0")
    distributed.adopt_slurm_variables()
    assert os.environ["RANK"] == "0"
    assert "WORLD_SIZE" not in os.environ


def test_a_node_list_that_cannot_be_resolved_names_the_way_out(environment):
    slurm(environment)
    environment.setenv("PATH", "")
    with pytest.raises(UserError, match="MASTER_ADDR"):
        distributed.adopt_slurm_variables()


def test_a_flag_of_one_process():
    flag = SharedFlag()
    assert not flag.seen_by_all()
    flag.raise_()
    assert flag.seen_by_all()


def raise_at_step_3(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    flag, steps = SharedFlag(), 0
    while not flag.seen_by_all():
        steps += 1
        if rank == 1 and steps == 3:
            flag.raise_()
    flag.close()
    with open(f"{folder}/{rank}", "w") as file:
        file.write(str(steps))
    dist.destroy_process_group()


def test_a_flag_raised_by_one_process_ends_all_at_the_same_step(tmp_path):
    mp.spawn(raise_at_step_3, (str(tmp_path),), nprocs=2)
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["4", "4"]
