"""`clever-fast evaluate`: what a run's representation is worth."""

import json
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from clever_fast.acceleration import accelerator
from clever_fast.commands.segmentation import saliency, video
from clever_fast.evaluate.knn import NEIGHBOURS, compare, few_labels
from clever_fast.evaluate.loading import load_run
from clever_fast.pipelines.reading import open_manifest
from clever_fast.recipe import Execution

__all__ = ["knn", "saliency", "video"]


def knn(
    run: Path,
    data: Path,
    *,
    neighbours: tuple[int, ...] = NEIGHBOURS,
    labels: int | None = None,
    classes: Path | None = None,
    device: Literal["auto", "cuda", "cpu"] = "auto",
) -> None:
    """Weighted k-NN accuracy of a run's features, whole and in parts, and what it is without training.

    The images of train/ vote on those of val/ or test/. So do those of an untrained encoder of the same seed, and
    raw pixels (32 x 32). The table is also written to the folder of the run: knn.json, or knn_N_labels.json.

    Args:
        run: folder of a pretraining run.
        data: folder with train/ and val/ or test/, each of class folders.
        neighbours: the values of k.
        labels: images of each class that vote, the first by name; None for all.
        classes: file with one class folder a line, for a subset.
        device: where to compute.
    """
    method, recipe, step = load_run(run)
    bank = open_manifest(data, classes=classes, progress=True)
    if labels is not None:
        bank = few_labels(bank, labels)
    query = open_manifest(data, split="val", classes=classes, progress=True)
    machine = accelerator(Execution(device=device))
    rows = compare(method, recipe, bank, query, machine, neighbours=neighbours)
    Console().print(_table(rows, f"k-NN accuracy in %, {len(bank):,} images vote on {len(query):,}"))
    result = {"step": step, "bank": len(bank), "queries": len(query), "classes": len(bank.classes), "accuracy": rows}
    path = run / ("knn.json" if labels is None else f"knn_{labels}_labels.json")
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {path}")


def _table(rows: dict[str, dict[int, float]], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("features")
    ks = list(next(iter(rows.values())))
    for k in ks:
        table.add_column(f"k = {k}", justify="right")
    for name, accuracy in rows.items():
        table.add_row(name, *(f"{accuracy[k]:.2f}" for k in ks))
    return table
