"""A run's curves as one picture."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from clever_fast.monitoring import metrics

NAME = "curves.png"
LOSSES = "losses"  # the panel of the loss itself
GENERAL = {
    "learning rate": ("lr",),
    "gradient norm": ("gradient_norm",),
    "images/s": ("images_per_second",),
    "share of time waiting for data": ("data_wait",),
}


def panels(metrics: Sequence[Mapping[str, Any]], logged: Container[str]) -> dict[str, dict[str, str]]:
    """Titles of plots, each with the label of every logged metric in it, from what a run's method declares."""
    found: dict[str, dict[str, str]] = {LOSSES: {"loss": "loss"}}
    for metric in metrics:
        if metric["panel"]:
            unit = f" ({metric['unit']})" if metric["unit"] else ""
            found.setdefault(metric["panel"] + unit, {})[metric["name"]] = metric["label"] or metric["name"]
    found |= {title: dict.fromkeys(names, title) for title, names in GENERAL.items()}
    return {
        title: shown
        for title, names in found.items()
        if (shown := {name: label for name, label in names.items() if name in logged})
    }


def draw(folder: Path) -> Path | None:
    """Draw `curves.png` from a run's `metrics.jsonl`; None where nothing was logged yet.

    With k-NN evaluations in the log, two panels show the accuracy against epochs and against wall time.
    """
    records = metrics.read(folder / metrics.LOG)
    train = [record for record in records if record["kind"] == "train"]
    knn = [record for record in records if record["kind"] == "knn"]
    if not train:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plots = panels(metrics.declared(records), train[-1])
    count = len(plots) + (2 if knn else 0)
    rows = -(-count // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(13, 3.2 * rows), constrained_layout=True, squeeze=False)
    free = iter(axes.flat)
    if knn:
        names = [name for name in knn[-1] if name.startswith("knn")]
        for axis, x, label, scale in ((next(free), "epoch", "epoch", 1), (next(free), "seconds", "minutes", 60)):
            for name in names:
                axis.plot([r[x] / scale for r in knn], [r[name] for r in knn], marker="o", markersize=3, label=name)
            axis.set(title=f"k-NN accuracy (%) against {'epochs' if x == 'epoch' else 'wall time'}", xlabel=label)
            axis.legend(fontsize=8, frameon=False)
    for (title, names), axis in zip(plots.items(), free, strict=False):
        for name, label in names.items():
            points = [(r["epoch"], r[name]) for r in train if r.get(name) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), label=label, linewidth=1.2)
        axis.set(title=title, xlabel="epoch")
        if len(names) > 1:
            axis.legend(fontsize=8, frameon=False)
    for axis in free:
        axis.set_visible(False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    path = folder / NAME
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
