"""`clever-fast recipes`: what there is to pretrain, and what it costs."""

import json
from pathlib import Path

from rich.table import Table

from clever_fast.terminal import show

KEPT = Path(__file__).parents[1] / "performance" / "recipe_costs.json"  # which recipe_costs.py writes


def recipes() -> None:
    """List every recipe with its epochs, policy, crops, batch and expected cost.

    The cost is counted, not measured: the multiplications of one image's forward passes (a teacher's too) and
    backward pass, heads included. GPU hours are a prediction for an A100, at the lower share of its peak that networks
    of this family are expected to reach, with VMamba's scans as a term of their own (docs/speed.md). Published: linear
    accuracy on the validation images as they are, and under CJ+Ro.
    """
    rows = json.loads(KEPT.read_text())  # to count takes torch and every network
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in rows[0]:
        number = column in ("epochs", "GFLOP/image", "A100 hours", "published %")
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row.values())
    show(table)
    print("GFLOP are counted from the networks; hours are a prediction, not a measurement.")
