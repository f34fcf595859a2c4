"""The example of docs/profiling.md, from what `clever-fast profile` wrote.

clever-fast profile --recipe clever_vitt16_in100 --out FOLDER ...
python -m clever_fast.benchmarks.checks.profiling_page FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from clever_fast.benchmarks.measure import DOCS, append, write_section

RESULTS = Path(__file__).resolve().parents[1] / "results" / "phases.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the --out of clever-fast profile")
    folder = parser.parse_args().folder
    record = json.loads((folder / "phases.jsonl").read_text().splitlines()[-1])
    append(RESULTS, record)
    shutil.copyfile(folder / "phases.png", DOCS / "profiling.png")
    write_section(DOCS / "profiling.md", "example", tables(record))


def tables(record: dict) -> str:
    """Phases and costliest operators in Markdown, with their conditions."""
    phases = record["phases_ms"]
    whole, recipe = sum(phases.values()), record["recipe"]
    lines = ["| phase | ms a step | share |", "|---|---|---|"]
    lines += [f"| {name} | {ms:.1f} | {ms / whole:.1%} |" for name, ms in phases.items()]
    lines += ["", "| costliest | ms a step | calls a step |", "|---|---|---|"]
    lines += [f"| `{cost['name']}` | {cost['ms']:.1f} | {cost['calls']:g} |" for cost in record["costliest"]]
    crops = f"2 x {recipe['global_size']} px + {recipe['local_crops']} x {recipe['local_size']} px"
    return "\n".join(lines) + (
        f"\n\n{recipe['method']['name']} {recipe['backbone']}, batch {record['batch']}, {crops}, fed with "
        f"{record['data']}; {record['steps']} steps on {record['hardware']}; {record['cores']} cores of an "
        f"{record['cpu']}, {record['date']}, commit {record['commit']}; torch {record['versions']['torch']}. "
        "Phases and operators are two runs, and the second pays for being watched.\n"
    )


if __name__ == "__main__":
    main()
