"""docs/faults.md from what the tests of faults recorded.

    python -m pytest -m "soak or fault" tests --faults benchmarks/results/faults.jsonl
    python -m clever_fast.benchmarks.checks.faults

`make soak` does both. Of several records of a test the newest counts.
"""

from __future__ import annotations

import json
from pathlib import Path

from clever_fast.benchmarks.measure import DOCS, asked_to_write, write_section

RESULTS = Path(__file__).resolve().parents[1] / "results" / "faults.jsonl"


def main() -> None:
    write = asked_to_write(__doc__)
    made = table([json.loads(line) for line in RESULTS.read_text().splitlines()])
    print(made)
    if write:
        write_section(DOCS / "faults.md", "table", made)


def table(records: list[dict]) -> str:
    """Fault, what happened and what was lost in Markdown, by test, with the conditions."""
    newest = {record["test"]: record for record in records}
    lines = ["| fault | what happened | lost |", "|---|---|---|"]
    lines += [f"| {r['fault']} | {r['happened']} | {r['lost']} |" for r in newest.values()]
    places = {(r["cpu"], r["cores"], r["versions"]["torch"]) for r in newest.values()}
    runs = sorted({(r["date"], r["commit"]) for r in newest.values()})
    where = "; ".join(f"{cores} cores of an {cpu}, torch {torch}" for cpu, cores, torch in sorted(places))
    return "\n".join(lines) + f"\n\n{where}; {', '.join(f'{date} at {commit}' for date, commit in runs)}.\n"


if __name__ == "__main__":
    main()
