"""How far elastic deformation moves pixels near a view's border, and torchvision's: a table in docs/augmentations.md.

    python -m clever_fast.benchmarks.checks.elastic_border

Everything is seeded and needs no data.
"""

from __future__ import annotations

import numpy as np

from clever_fast.benchmarks.checks import references
from clever_fast.benchmarks.checks.graph import row
from clever_fast.benchmarks.measure import DOCS, asked_to_write, write_section
from clever_fast.environment import conditions
from clever_fast.pipelines.augmentations import Elastic
from clever_fast.pipelines.augmentations.elastic import at_every_pixel, border_gain, pixel_map, smooth_field
from clever_fast.pipelines.views import Canvas

VIEWS = {96: 2000, 224: 500}  # pixels of a view, and how many are drawn
EDGE = 3  # pixels at a border that are its edge
PLACES = {
    "whole view": (slice(None), slice(None)),
    "inside": (slice(24, -24), slice(24, -24)),
    "edges": (slice(0, EDGE), slice(24, -24)),
    "corners": (slice(0, EDGE), slice(0, EDGE)),
}


def ours(size: int, count: int) -> np.ndarray:
    """(count, size, size, 2) float32, (x, y) in pixels, of the fields of ten seeds."""
    elastic, moved = Elastic(probability=1.0), []
    identity = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)
    for seed in range(10):
        canvas = Canvas(size, "cpu", at_every_pixel(smooth_field(seed)))
        cut = elastic.sample(np.random.default_rng(seed).random((count // 10, elastic.draws)), size)
        moved += [np.stack(pixel_map(row(cut, i), canvas), axis=-1) - identity for i in range(count // 10)]
    return np.stack(moved).astype(np.float32)


def sided(moved: np.ndarray) -> np.ndarray:
    """The same seen from all four corners, so that one edge and one corner stand for all; (4 count, size, size, 2)."""
    return np.concatenate([np.rot90(moved, quarters, axes=(1, 2)) for quarters in range(4)])


def figures(moved: np.ndarray) -> dict[str, float]:
    """Root mean squares in pixels: of displacements, at each place, and of how they change to the next pixel inwards;
    and the percentage of pixels that show what lies outside the image, which is black."""
    size, turned = moved.shape[1], sided(moved)
    found = {name: float(np.sqrt((turned[:, rows, columns] ** 2).mean())) for name, (rows, columns) in PLACES.items()}
    change = np.diff(turned, axis=1)
    for name, (rows, columns) in (("edges", PLACES["edges"]), ("inside", PLACES["inside"])):
        found[f"change, {name}"] = float(np.sqrt((change[:, rows, columns] ** 2).mean()))
    place = moved + np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)
    found["black"] = float(100 * ((place < -0.5) | (place > size - 0.5)).any(-1).mean())
    return found


def table() -> str:
    columns = ("view", "displacements", *PLACES, "change to the next pixel: edges", "inside", "black")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for size, count in VIEWS.items():
        here, gain = ours(size, count), border_gain(size)
        rows = {
            "torchvision": references.displacements(size, count),
            "here": here,
            "here, without the gain at the border": here / (gain[:, None] * gain)[:, :, None],
        }
        for name, moved in rows.items():
            *pixels, black = figures(moved).values()
            lines.append(f"| {size} px | {name} | " + " | ".join(f"{x:.2f}" for x in pixels) + f" | {black:.2f} % |")
    found = conditions()
    counts = " and ".join(f"{count:,} of {size} px" for size, count in VIEWS.items())
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join(lines) + f"\n\nAlpha 100; {counts}. Measured on {found['date']} with {versions}.\n"


def main() -> None:
    write = asked_to_write(__doc__)
    made = table()
    print(made)
    if write:
        write_section(DOCS / "augmentations.md", "elastic", made)


if __name__ == "__main__":
    main()
