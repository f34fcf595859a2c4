"""The file that a measurement is written to, and the sections of the docs that are made from it."""

from __future__ import annotations

import json
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def append(path: Path, record: dict) -> None:
    """Adds one line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def write_section(page: Path, name: str, text: str) -> None:
    """Puts `text` between the lines `<!-- name:begin -->` and `<!-- name:end -->` of a page."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + text + end + rest.split(end)[1])
