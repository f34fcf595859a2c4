"""A run's folder takes one run at a time, and a lock that was left behind goes by itself."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from clever_fast.checkpoint.lock import LOCK, locked
from clever_fast.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from clever_fast.checkpoint.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_a_killed_one_lets_go(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid} on {socket.gethostname()} is training in {tmp_path}"):
        locked(tmp_path).__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            locked(tmp_path).__enter__()
    assert not (tmp_path / LOCK).exists()


def test_a_dead_host_is_waited_for_and_a_living_one_refused(tmp_path, capsys):
    def leave():
        (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "process": 7}))

    leave()
    with locked(tmp_path, silent=0.3):
        assert "on elsewhere, did not end; waiting" in capsys.readouterr().out
    leave()
    alive = threading.Timer(0.2, os.utime, [tmp_path / LOCK])
    alive.start()
    begin = time.monotonic()
    with pytest.raises(UserError, match="process 7 on elsewhere is training"):
        locked(tmp_path, silent=30).__enter__()
    assert time.monotonic() - begin < 20


def test_a_run_gives_signs_of_life(tmp_path):
    with locked(tmp_path, beat=0.02):
        first = (tmp_path / LOCK).stat().st_mtime_ns
        end = time.monotonic() + 20
        while (tmp_path / LOCK).stat().st_mtime_ns == first:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "x"])
def test_a_lock_that_says_nothing_is_taken(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path, silent=30):
        pass
