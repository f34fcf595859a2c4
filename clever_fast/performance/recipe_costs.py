"""Keeps the table of `clever-fast recipes`, which needs no torch: python -m clever_fast.performance.recipe_costs

A recipe that was added or changed needs it again, and a test says so.
"""

import argparse
import json
from pathlib import Path

from clever_fast.performance.flops import IMAGES, predicted_rates
from clever_fast.recipes import CATALOGUE, Entry

KEPT = Path(__file__).with_suffix(".json")


def row(name: str, entry: Entry) -> dict[str, str]:
    """A line of the table, each column as it is printed."""
    recipe, images = entry.recipe, IMAGES.get(entry.data)
    hours = images * recipe.epochs / predicted_rates(recipe, "A100")[0] / 3600 if images else None
    return {
        "recipe": name,
        "policy": recipe.policy.name,
        "crops": f"2x{recipe.global_size}" + f" + {recipe.local_crops}x{recipe.local_size}" * bool(recipe.local_crops),
        "batch": str(recipe.batch_size),
        "lr": f"{recipe.lr:.2g}",
        "epochs": str(recipe.epochs),
        "GFLOP/image": f"{entry.gflop:.1f}",
        "A100 hours": f"{hours:,.1f}" if hours else "-",
        "published %": "{:.1f} / {:.1f}".format(*entry.published) if entry.published else "-",
    }


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    KEPT.write_text(json.dumps([row(*item) for item in CATALOGUE.items()], indent=1) + "\n")
    print(f"{KEPT}: {len(CATALOGUE)} recipes")
