"""Printing and signals: no command ends with a traceback, whatever its terminal is and whoever stops it."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.table import Table

from clever_fast import progress, terminal
from clever_fast.terminal import LastingStream, lasting_streams, show

PRINT = "from clever_fast.terminal import lasting_streams\nwith lasting_streams():\n    {}\nraise SystemExit(5)"
SLEEP = """
import sys, time
from clever_fast import cli
cli._run = lambda words: (print("ready", flush=True), [time.sleep(0.05) for _ in range(1200)])
sys.exit(cli.main(["index"]))
"""


def run(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **options)


def test_a_full_disk_behind_stdout_is_said_once_and_ends_nothing():
    with open("/dev/full", "w") as full:
        done = run(PRINT.format("[print('x' * 10000) for _ in range(9)]"), stdout=full)
    assert (done.returncode, done.stderr) == (5, "clever-fast: cannot print any more: No space left on device\n")


def test_a_reader_that_has_left_ends_nothing():
    reading, writing = os.pipe()
    os.close(reading)
    done = run(PRINT.format("[print('x' * 10000) for _ in range(9)]"), stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (5, "")


def test_a_closed_stdout_ends_nothing():
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" >&-', sys.executable, PRINT.format("print('x')")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (5, "")


def test_an_ascii_terminal_gets_numbers_for_letters(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with lasting_streams():
        assert isinstance(sys.stdout, LastingStream)
        print("━ \udce9")
    assert raw.getvalue() == b"\\u2501 \\udce9\n"


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")],
)
def test_a_signal_ends_a_command_with_one_line(number, code, name):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", SLEEP], **options)
    assert process.stdout.readline() == "ready\n"
    begin = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (code, f"clever-fast: stopped by {name}\n")
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_keeps_its_words_at_any_width(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    names = [f"CJ+Ro+ET+Flip number {i}" for i in range(6)]
    table = Table(*names, box=None)
    table.add_row(*map(str, range(6)))
    show(table, "a title")
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert "…" not in printed


def test_a_log_gets_a_line_every_half_minute(monkeypatch, capsys):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.images_bar("reading", 8) as advance:
        for _ in range(7):
            advance()
    assert capsys.readouterr().out.splitlines() == [
        "reading: 3 of 8 images, about 50 s to go",
        "reading: 6 of 8 images, about 20 s to go",
    ]


def test_ignored_signals_stay_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with terminal.interruptible():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
