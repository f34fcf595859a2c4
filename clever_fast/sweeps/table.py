"""The scores of a sweep as one table and one plot: means and spread over seeds."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

from clever_fast.sweeps.grid import SEED

Record = dict[str, Any]  # "point": values of the grid's fields; "accuracy": percent by what was scored; and more


def write(records: list[Record], folder: Path) -> str:
    """Write table.md, scores.csv, scores.json (one row a run) and plot.png; returns the table with where they are."""
    text = table(records)
    (folder / "table.md").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    (folder / "scores.json").write_text(json.dumps(records, indent=2) + "\n")
    rows = [
        r["point"] | r["accuracy"] | {name: r[name] for name in ("k", "epochs", "loss", "seconds")} for r in records
    ]
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(records, folder / "plot.png")
    return f"{text}\n\nwritten to {folder}: table.md, scores.csv, scores.json, plot.png"


def by_setting(records: list[Record]) -> dict[tuple, list[Record]]:
    """Records by the values of the swept fields but the seed, in the order of those values."""
    settings: dict[tuple, list[Record]] = {}
    for record in records:
        settings.setdefault(tuple(v for field, v in record["point"].items() if field != SEED), []).append(record)
    try:
        return dict(sorted(settings.items()))
    except TypeError:  # values of different types, such as None and a number, have no order
        return settings


def table(records: list[Record]) -> str:
    """A row a setting: mean ± standard deviation over seeds of every accuracy, in percent. Markdown."""
    fields, names = swept(records), list(records[0]["accuracy"])
    lines = [
        f"| {' | '.join([*map(label, fields), 'seeds', *names])} |",
        f"|{'---|' * len(fields)}{'---:|' * (1 + len(names))}",
    ]
    for setting, group in by_setting(records).items():
        cells = [spread([r["accuracy"][name] for r in group]) for name in names]
        lines.append(f"| {' | '.join([*map(show, setting), str(len(group)), *cells])} |")
    first = records[0]
    return "\n".join(lines) + (
        f"\n\nk-NN accuracy in percent, k = {first['k']}, {first['bank']:,} images vote on {first['queries']:,}; "
        "mean ± standard deviation over seeds."
    )


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation; of one value, the value alone."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def swept(records: list[Record]) -> list[str]:
    """The fields of the grid but the seed."""
    return [field for field in records[0]["point"] if field != SEED]


def draw(records: list[Record], path: Path) -> None:
    """Accuracy against the first swept field, a line for each value of the others; bars are standard deviations.

    Values are evenly spaced, whatever their distances: 0 has a place beside 0.0001, and a policy beside another.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4.2), constrained_layout=True)
    panel(axis, records)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def panel(axis: Any, records: list[Record]) -> None:
    """`draw` into one matplotlib axis."""
    fields, settings = swept(records), by_setting(records)
    firsts = list(dict.fromkeys(setting[:1] for setting in settings))  # empty where only the seed is swept
    others = list(dict.fromkeys(setting[1:] for setting in settings))
    lines = [("trained all", other) for other in others]
    if len(others) == 1:  # room for the parts of the features
        lines += [(name, others[0]) for name in records[0]["accuracy"] if name not in ("trained all", "untrained all")]
    lines.append(("untrained all", None))
    for i, (name, other) in enumerate(lines):
        chosen = {s: group for s, group in settings.items() if other in (None, s[1:])}
        groups = [[r["accuracy"][name] for s, g in chosen.items() if s[:1] == first for r in g] for first in firsts]
        drawn = [(x, group) for x, group in enumerate(groups) if group]
        means = [statistics.mean(group) for _, group in drawn]
        errors = [statistics.stdev(group) if len(group) > 1 else 0 for _, group in drawn]
        text = name if not other else ", ".join(f"{label(f)} {show(v)}" for f, v in zip(fields[1:], other, strict=True))
        style = {"color": "#777777", "linestyle": ":"} if other is None else {"color": f"C{i}"}
        shift = 0.04 * (i - (len(lines) - 1) / 2)  # so that bars of equal values can be told apart
        xs = [x + shift for x, _ in drawn]
        axis.errorbar(xs, means, errors, marker="o", markersize=4, capsize=3, label=text, **style)
        for x, (_, group) in zip(xs, drawn, strict=True):
            axis.plot([x] * len(group), group, ".", markersize=3, alpha=0.5, color=style["color"])
    axis.set_xticks(range(len(firsts)), [", ".join(map(show, first)) for first in firsts])
    axis.set(xlabel=label(fields[0]) if fields else "", ylabel=f"k-NN accuracy (%), k = {records[0]['k']}")
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def label(field: str) -> str:
    """A field's name for people."""
    return field.removeprefix("method.").replace("_", " ")


def show(value: Any) -> str:
    """A value for people."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
