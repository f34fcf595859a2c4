"""`make gpu`: a part that fails, hangs or lacks a package is named, and the next ones run."""

import sys

import pytest

from clever_fast.benchmarks import on_gpu
from clever_fast.benchmarks.on_gpu import Part

PYTHON = [sys.executable, "-c"]
PARTS = [
    Part("fails", [*PYTHON, "print('what it said'); raise SystemExit(3)"], 60),
    Part("hangs", [*PYTHON, "import time; print('before', flush=True); time.sleep(60)"], 6),
    Part("lacks", [*PYTHON, ""], 60, ("torch", "no_such_package")),
    Part("runs", [*PYTHON, "import os; print(os.environ['TORCH_CUDA_ARCH_LIST'])"], 60),
    Part("report", [*PYTHON, ""], 60),
]


@pytest.mark.parametrize("gpu", [True, False])
def test_every_part_says_how_it_ended(gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(on_gpu, "parts", lambda out: PARTS)
    monkeypatch.setattr(on_gpu, "PROBE", f"print({'9.0' if gpu else ''!r}); print('a machine')")
    code = on_gpu.main(["--out", str(tmp_path)])
    verdicts = {
        line.split()[0]: line.split(" s  ")[1] for line in (tmp_path / "summary.txt").read_text().split("\n")[1:-1]
    }
    assert list(verdicts) == [part.name for part in PARTS]
    assert verdicts["lacks"] == "left out: no_such_package not installed"
    if not gpu:
        assert code == 0
        assert {verdicts[name] for name in ("fails", "hangs", "runs", "report")} == {"left out: no GPU"}
        return
    assert code == 1
    assert verdicts["report"] == "ok"
    assert verdicts["fails"].startswith("FAILED with exit code 3")
    assert verdicts["hangs"].startswith("CUT after 6 s")
    assert (tmp_path / "logs" / "hangs.log").read_text() == "before\n"
    assert (tmp_path / "logs" / "runs.log").read_text() == "9.0\n"
    assert "    what it said" in capsys.readouterr().out


def test_nothing_begins_when_the_time_is_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(on_gpu, "parts", lambda out: PARTS[3:])
    monkeypatch.setattr(on_gpu, "PROBE", "print('9.0')")
    assert on_gpu.main(["--out", str(tmp_path), "--minutes", "0.9"]) == 0
    assert "left out: the time is over" in capsys.readouterr().out
