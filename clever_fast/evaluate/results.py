"""What a protocol found: written as JSON, CSV, a Markdown table and a figure, and shown on the console."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from rich.table import Table

Row = dict[str, Any]  # "accuracy" in percent, perhaps its "spread", and the keys that tell what it is the accuracy of


@dataclass(frozen=True)
class Results:
    """Numbers in long form, and how they make a table: `down` names the rows and `across` the columns.

    A row of `rows` with "shown" False is kept in JSON and CSV only.
    """

    protocol: str  # the files' name
    title: str
    rows: list[Row]
    down: tuple[str, ...]
    across: str
    about: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, results: Results) -> list[Path]:
    """Write PROTOCOL.json, .csv, .md and .png into `folder`, and return their paths."""
    paths = [folder / f"{results.protocol}.{kind}" for kind in ("json", "csv", "md", "png")]
    keep_earlier(paths)
    content = {"protocol": results.protocol, "title": results.title, **results.about, "rows": results.rows}
    paths[0].write_text(json.dumps(content, indent=2) + "\n")
    with paths[1].open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in results.rows for key in row)))
        table.writeheader()
        table.writerows(results.rows)
    paths[2].write_text(markdown(results), encoding="utf-8", errors="backslashreplace")
    draw(paths[3], results)
    return paths


def keep_earlier(paths: Sequence[Path]) -> None:
    """Move files that are there out of the way, all under one number, and say so."""
    there = [path for path in paths if path.exists()]
    if not there:
        return
    numbers = (number for number in count(1) if not any(_earlier(path, number).exists() for path in paths))
    number = next(numbers)
    for path in there:
        path.rename(_earlier(path, number))
    print(f"the earlier results are kept as {_earlier(there[0], number)}")


def _earlier(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def pivot(results: Results) -> tuple[list[str], list[str], dict[tuple[str, str], Row]]:
    """Names of the rows and of the columns, and what stands where; both in order of appearance."""
    cells = {
        (" ".join(_column(key, row[key]) for key in results.down), _column(results.across, row[results.across])): row
        for row in results.rows
        if row.get("shown", True)
    }
    names, columns = (list(dict.fromkeys(key[side] for key in cells)) for side in (0, 1))
    return names, columns, cells


def _column(key: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{key} {value}"


def cell(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row['accuracy']:.2f}" + (f" ± {row['spread']:.2f}" if row.get("spread") else "")


def markdown(results: Results) -> str:
    """The title, the table and the conditions as a page."""
    names, columns, cells = pivot(results)
    lines = [f"# {results.title}", "", _line(["", *columns]), _line(["---"] + ["---:"] * len(columns))]
    lines += [_line([name, *(cell(cells.get((name, column))) for column in columns)]) for name in names]
    about = [f"- {name}: {value}" for name, value in results.about.items()]
    return "\n".join([*lines, "", *about]) + "\n"


def _line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def console_table(results: Results) -> Table:
    names, columns, cells = pivot(results)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(" ".join(results.down))
    for column in columns:
        table.add_column(column, justify="right")
    for name in names:
        table.add_row(name, *(cell(cells.get((name, column))) for column in columns))
    return table


def _colors(names: list[str]) -> dict[str, tuple[float, float, float]]:
    """A hue for each first word, its shades for the names that begin with it."""
    from matplotlib import colormaps

    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(name.split()[0], []).append(name)
    shades = colormaps["tab20c"].colors  # five hues of four shades
    colors = {}
    for hue, group in enumerate(members.values()):
        dark, light = (shades[(4 * hue + end) % len(shades)] for end in (0, 3))
        for i, name in enumerate(group):
            share = i / max(len(group) - 1, 3)
            colors[name] = tuple(a + share * (b - a) for a, b in zip(dark, light, strict=True))
    return colors


def draw(path: Path, results: Results) -> None:
    """Bars in groups, a group for each column of the table, with the spread."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names, columns, cells = pivot(results)
    width, colors = 0.84 / len(names), _colors(names)
    inches = min(16, max(5.5, 1.5 + 0.34 * len(names) * len(columns) + 0.5 * len(columns)))
    figure, axis = plt.subplots(figsize=(inches, 4.2), constrained_layout=True)
    for i, name in enumerate(names):
        there = [j for j, column in enumerate(columns) if (name, column) in cells]
        rows = [cells[name, columns[j]] for j in there]
        places = [j + (i - (len(names) - 1) / 2) * width for j in there]
        heights, errors = [row["accuracy"] for row in rows], [row.get("spread") or 0 for row in rows]
        style = {"label": name, "color": colors[name], "error_kw": {"ecolor": "#333333", "elinewidth": 1}}
        bars = axis.bar(places, heights, 0.92 * width, yerr=errors if any(errors) else None, **style)
        if len(names) * len(columns) <= 40:
            axis.bar_label(bars, [f"{height:.0f}" for height in heights], fontsize=7, padding=3, color="#444444")
    axis.set_xticks(range(len(columns)), columns)
    axis.set(ylabel="accuracy (%)", title=results.title)
    axis.set_ylim(0, 1.12 * max(max(row["accuracy"] for row in cells.values()), 1))
    axis.title.set_fontsize(11)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    axis.set_axisbelow(True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
