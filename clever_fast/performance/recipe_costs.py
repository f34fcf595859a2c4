"""Counts what every recipe costs and keeps it for `clever-fast recipes`: python -m clever_fast.performance.recipe_costs

A recipe that was added or changed needs it again, and a test says so.
"""

import argparse
import json
from pathlib import Path

from clever_fast.options import Recipe
from clever_fast.performance.flops import GOOD_SHARE, IMAGES, gflop_per_image, predicted_rate
from clever_fast.recipes import RECIPES

KEPT = Path(__file__).with_suffix(".json")


def row(name: str, recipe: Recipe) -> dict[str, str]:
    """A line of the table, each column as it is printed."""
    gflop, images = gflop_per_image(recipe), IMAGES.get(name.split("_")[2] if name.count("_") > 1 else "")
    hours = images * recipe.epochs / predicted_rate(gflop, "A100", GOOD_SHARE[0]) / 3600 if images else None
    return {
        "recipe": name,
        "policy": recipe.policy.name,
        "crops": f"2x{recipe.global_size}" + f" + {recipe.local_crops}x{recipe.local_size}" * bool(recipe.local_crops),
        "batch": str(recipe.batch_size),
        "lr": f"{recipe.lr:.2g}",
        "epochs": str(recipe.epochs),
        "GFLOP/image": f"{gflop:.1f}",
        "A100 hours at 40 %": f"{hours:,.1f}" if hours else "-",
    }


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    KEPT.write_text(json.dumps([row(*item) for item in RECIPES.items()], indent=1) + "\n")
    print(f"{KEPT}: {len(RECIPES)} recipes")
