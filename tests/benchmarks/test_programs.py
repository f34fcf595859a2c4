"""The programs of benchmarks/ help when they are asked to, and write docs only where there are some."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

from clever_fast.benchmarks.measure import write_section

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path for path in (ROOT / "benchmarks").rglob("*.py") if "__main__" in path.read_text())


def test_every_program_reads_its_options_by_argparse():
    for path in PROGRAMS:
        calls = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert calls & {"parse_args", "parse_known_args"} or "asked_to_write" in names, path


@pytest.mark.parametrize("path", [pytest.param(p, marks=pytest.mark.full) for p in PROGRAMS], ids=lambda p: p.stem)
def test_help_helps(path, monkeypatch, capsys):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"clever_fast.{name}", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_without_docs_the_text_is_printed_and_no_traceback(tmp_path):
    with pytest.raises(SystemExit, match=r"the table\n.*is not there: only a checkout"):
        write_section(tmp_path / "docs" / "page.md", "table", "the table")
    assert not list(tmp_path.iterdir())
