"""What PReg prevents: the norms of both heads and the orthogonality loss over a run, with and without it.

    python -m clever_fast.benchmarks.preg --out runs/preg

Every run is a `clever-fast pretrain` of a minute on one CPU core: each similarity with and without PReg, at each weight
decay, several seeds. What is done already is not done again. Without --data the demo's images are drawn.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import product
from pathlib import Path

from clever_fast import metrics
from clever_fast.benchmarks.measure import DOCS, append, conditions, write_section
from clever_fast.commands.demo import IMAGES
from clever_fast.commands.pretrain import pretrain
from clever_fast.commands.synthesize import synthesize

RESULTS = Path(__file__).parent / "results" / "preg.jsonl"
SHORT = ("--recipe.global_size", "16", "--recipe.batch_size", "32", "--recipe.epochs", "8")
SIMILARITIES = {"cosine": "the released cosine", "dot": "the paper's dot product"}
WEIGHTS = ("0", "0.001")  # of PReg: none, and the released one
# Where the weight decay starts and ends. The sum of learning rate times decay over these 496 steps is a hundredth of the
# published run's (200 epochs of 247 steps), so "hundredfold" takes as much off the weights as a whole published run.
DECAYS = {"none": ("0", "0"), "published": ("0.04", "0.4"), "hundredfold": ("4", "40")}
CURVES = ("ir_norm_squared", "ef_norm_squared", "orthogonality", "invariance")
COLORS = {"0": "#d9772b", "0.001": "#2f6fdb"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, default=None, help="folder with train/ of class folders; else drawn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--decays", nargs="+", choices=DECAYS, default=list(DECAYS))
    parser.add_argument("--recipe", default="clever_demo")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options, overrides = parser.parse_known_args()
    conditions()  # as they are before the first run
    if options.data is None:
        options.data = options.out / "images"
        synthesize(options.data, **IMAGES)
    for setting in product(options.seeds, options.decays, SIMILARITIES, WEIGHTS):
        run = options.out / "seed{}_decay_{}_{}_preg_{}".format(*setting)
        if not (run / "measured").exists():
            words = [*command(options.recipe, *setting), *overrides]
            if pretrain([*words, "--data", str(options.data), "--run", str(run)]):
                raise SystemExit(1)
            append(options.results, record(setting, words, run))
            (run / "measured").touch()
    if options.results == RESULTS:
        publish([json.loads(line) for line in RESULTS.read_text().splitlines()])


def command(recipe: str, seed: int, decay: str, similarity: str, weight: str) -> list[str]:
    """The words of `clever-fast pretrain`, without its folders."""
    start, end = DECAYS[decay]
    method = ["--recipe.method.orthogonality", similarity, "--recipe.method.preg_weight", weight]
    decays = ["--recipe.weight_decay", start, "--recipe.weight_decay_end", end]
    return ["--recipe", recipe, *SHORT, "--recipe.seed", str(seed), *decays, *method]


def record(setting: tuple, words: list[str], run: Path) -> dict:
    log = [r for r in metrics.read(run / metrics.LOG) if r["kind"] == "train"]
    return {
        "benchmark": "preg",
        **dict(zip(("seed", "decay", "similarity", "weight"), setting)),
        "words": words,
        "seconds": log[-1]["seconds"],
        "step": [r["step"] for r in log],
        **{name: [float(f"{r[name]:.5g}") for r in log] for name in CURVES},
        **conditions(),
    }


def table(records: list[dict]) -> str:
    return ""


def draw(records: list[dict], path: Path) -> None:
    pass


def publish(records: list[dict]) -> None:
    write_section(DOCS / "preg.md", "preg", table(records))
    draw(records, DOCS / "preg.png")


if __name__ == "__main__":
    main()
