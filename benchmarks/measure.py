"""The file that a measurement is written to, and the sections of the docs that are made from it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def append(path: Path, record: dict) -> None:
    """Adds one line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def asked_to_write(about: str) -> bool:
    """Whether a program that has no other option is asked to write its table into the docs; it prints it else."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--docs", action="store_true", help="write the table into docs/ of this checkout")
    return parser.parse_args().docs


def write_section(page: Path, name: str, text: str) -> None:
    """Puts `text` between the lines `<!-- name:begin -->` and `<!-- name:end -->` of a page.

    Raises:
        SystemExit: there is no such page, as in an installed package; the text is printed.
    """
    if not page.is_file():
        raise SystemExit(f"{text}\n{page} is not there: only a checkout of this project has docs to write into")
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + text + end + rest.split(end)[1])
