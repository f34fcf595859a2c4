"""`clever-fast recipes`: what there is to pretrain, and what it costs."""

from rich.console import Console
from rich.table import Table

from clever_fast.performance.flops import IMAGES, predicted_rates
from clever_fast.recipes import CATALOGUE


def recipes() -> None:
    """List every recipe with its epochs, policy, crops, batch and expected cost.

    The cost is counted, not measured: the multiplications of one image's forward passes (a teacher's too) and
    backward pass, heads included. GPU hours are a prediction for an A100, at the lower share of its peak that networks
    of this family are expected to reach, with VMamba's scans as a term of their own (docs/speed.md). Published: linear
    accuracy on the validation images as they are, and under CJ+Ro.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("recipe", "policy", "crops", "batch", "lr"):
        table.add_column(column, no_wrap=True)
    for column in ("epochs", "GFLOP/image", "A100 hours", "published %"):
        table.add_column(column, justify="right")
    for name, entry in CATALOGUE.items():
        recipe, gflop, images = entry.recipe, entry.gflop, IMAGES.get(entry.data)
        hours = images * recipe.epochs / predicted_rates(recipe, "A100")[0] / 3600 if images else None
        table.add_row(
            name,
            recipe.policy.name,
            f"2x{recipe.global_size}" + f" + {recipe.local_crops}x{recipe.local_size}" * bool(recipe.local_crops),
            str(recipe.batch_size),
            f"{recipe.lr:.2g}",
            str(recipe.epochs),
            f"{gflop:.1f}",
            f"{hours:,.1f}" if hours else "-",
            "{:.1f} / {:.1f}".format(*entry.published) if entry.published else "-",
        )
    Console(width=120).print(table)
    print("GFLOP are counted from the networks; hours are a prediction, not a measurement.")
