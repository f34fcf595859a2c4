"""`clever-fast recipes`: what there is to pretrain, and what it costs."""

from rich.console import Console
from rich.table import Table

from clever_fast.bar import rounds_bar
from clever_fast.cost import IMAGES, gflop_per_image, predicted_rates
from clever_fast.recipes import RECIPES


def recipes() -> None:
    """List every recipe with its epochs, policy, crops, batch and expected cost.

    The cost is counted, not measured: the multiplications of one image's forward passes (a teacher's too) and
    backward pass, heads included. GPU hours are a prediction for an A100, at the lower share of its peak that networks
    of this family are expected to reach, with VMamba's scans as a term of their own (docs/speed.md).
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("recipe", "policy", "crops", "batch", "lr"):
        table.add_column(column, no_wrap=True)
    for column in ("epochs", "GFLOP/image", "A100 hours"):
        table.add_column(column, justify="right")
    with rounds_bar(len(RECIPES)) as (advance, _):  # each network is traced once
        for name, recipe in RECIPES.items():
            gflop_per_image(recipe)
            advance(name)
    for name, recipe in RECIPES.items():
        gflop, images = gflop_per_image(recipe), IMAGES.get(name.split("_")[2] if name.count("_") > 1 else "")
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
        )
    Console(width=120).print(table)
    print("GFLOP are counted from the networks; hours are a prediction, not a measurement.")
