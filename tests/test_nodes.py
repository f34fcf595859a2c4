"""Two hosts under torchrun: what one host trains, a rank that is killed, and the way back from the last checkpoint."""

import re
import subprocess
import time
from contextlib import ExitStack

import pytest
import torch

from clever_fast import checkpoint
from clever_fast.options import Execution, Run
from clever_fast.train import train
from tests.hosts import Hosts, namespaces
from tests.recipes import small_vit

CPU = Execution(device="cpu", precision="fp32", threads=1)
NEVER = -1


def weights(folder):
    return checkpoint.method_state(checkpoint.load(folder / checkpoint.NEWEST))


@pytest.fixture
def hosts():
    """Starts two hosts; they are ended with the test."""
    started = []

    def start(*arguments, **options) -> Hosts:
        started.append(Hosts(*arguments, **options))
        return started[-1]

    yield start
    for pair in started:
        pair.close()


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """The weights of one process on the same global batches."""
    folder = tmp_path_factory.mktemp("alone")
    train(small_vit("dino"), CPU, Run(data=images, folder=folder))
    return weights(folder)


def test_a_killed_rank_on_another_host_is_restarted_from_the_last_checkpoint(hosts, images, tmp_path, alone):
    """Elastic rendezvous. The step that was under way is done again: no step is missing from the weights."""
    pair = hosts(tmp_path, [str(images), str(tmp_path / "run"), "3"], elastic=2)
    assert pair.wait(120) == [0, 0], pair.text()
    text = pair.text()
    assert "resumed at step" in text
    for name, value in alone.items():
        torch.testing.assert_close(weights(tmp_path / "run")[name], value, rtol=0, atol=2e-6)


@pytest.mark.full
@pytest.mark.parametrize("elastic", [None, 2])
def test_two_hosts_train_what_one_process_does(hosts, images, tmp_path, alone, elastic):
    """Static and elastic rendezvous, between network namespaces where they are allowed."""
    with ExitStack() as stack:
        try:
            names = stack.enter_context(namespaces())
        except (OSError, subprocess.CalledProcessError):
            names = None
        pair = hosts(tmp_path, [str(images), str(tmp_path / "run"), str(NEVER)], elastic=elastic, names=names)
        assert pair.wait(120) == [0, 0], pair.text()
    for name, value in alone.items():
        torch.testing.assert_close(weights(tmp_path / "run")[name], value, rtol=0, atol=2e-6)


@pytest.mark.full
def test_the_weights_after_a_restart_are_those_of_two_hosts_undisturbed_bit_for_bit(hosts, images, tmp_path, fault):
    for name, dies_at in (("undisturbed", NEVER), ("restarted", 3)):
        pair = hosts(tmp_path, [str(images), str(tmp_path / name), str(dies_at)], elastic=2)
        assert pair.wait(120) == [0, 0], pair.text()
    a, b = weights(tmp_path / "undisturbed"), weights(tmp_path / "restarted")
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    (again,) = set(re.findall(r"resumed at step (\d+)", pair.text()))
    fault(
        "kill -9 of the process on the second of two hosts in step 4 (torchrun, elastic)",
        f"both hosts start again at step {again}, their newest checkpoint, and end with the weights of two hosts that "
        "nobody disturbed, bit for bit",
        f"steps done again: {4 - int(again)}",
    )


@pytest.mark.full
def test_without_restarts_a_killed_rank_ends_the_job_everywhere_and_is_named(hosts, images, tmp_path, fault):
    pair = hosts(tmp_path, [str(images), str(tmp_path / "run"), "3"])
    begin = time.monotonic()
    codes = pair.wait(120)
    seconds = time.monotonic() - begin
    assert seconds < 60
    assert all(codes), pair.text()
    first, second = (log.read_text() for log in pair.logs)
    assert "another process of this run is gone" in first
    assert "SIGKILL" in second
    step = checkpoint.load(tmp_path / "run" / checkpoint.NEWEST)["step"]
    assert step in (2, 3)
    fault(
        "the same without restarts (torchrun, static)",
        f"the job has ended on both hosts {seconds:.0f} s after it began; the one says that another process is gone, "
        "the launcher of the other names it and its signal",
        f"steps that the same command does again: {4 - step}",
    )
