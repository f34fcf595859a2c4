"""What PReg prevents: the norms of both heads and the orthogonality loss over a run, with and without it.

    python -m clever_fast.benchmarks.preg --out runs/preg

Every run is a `clever-fast pretrain` of a few minutes on one CPU core: each similarity with and without PReg, with and
without weight decay, several seeds. What is done already is not done again. Without --data the demo's images are drawn.
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
SIMILARITIES = ("cosine", "dot")
PREG = ("0.001", "0")  # the released weight, and none
DECAYS = {"published": ("0.04", "0.4"), "none": ("0", "0")}  # where the weight decay starts and ends
SHORT = "--recipe.global_size 16 --recipe.batch_size 32 --recipe.epochs 8".split()
CURVES = ("ir_norm_squared", "ef_norm_squared", "orthogonality", "invariance", "preg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, default=None, help="folder with train/ of class folders; else drawn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--recipe", default="clever_demo")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options, overrides = parser.parse_known_args()
    if options.data is None:
        options.data = options.out / "images"
        synthesize(options.data, **IMAGES)
    for seed, similarity, decay, preg in product(options.seeds, SIMILARITIES, DECAYS, PREG):
        run = options.out / f"{similarity}_decay_{decay}_preg_{preg}_seed{seed}"
        if not (run / "measured").exists():
            start, end = DECAYS[decay]
            words = [
                "--recipe",
                options.recipe,
                "--recipe.seed",
                str(seed),
                "--recipe.method.orthogonality",
                similarity,
            ]
            words += ["--recipe.method.preg_weight", preg]
            words += ["--recipe.weight_decay", start, "--recipe.weight_decay_end", end, *SHORT, *overrides]
            if pretrain([*words, "--data", str(options.data), "--run", str(run)]):
                raise SystemExit(1)
            append(options.results, record(similarity, decay, preg, seed, run, words))
            (run / "measured").touch()
    if options.results == RESULTS:
        records = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        write_section(DOCS / "preg.md", "preg", table(records))
        draw(records, DOCS / "preg.png")


def record(similarity: str, decay: str, preg: str, seed: int, run: Path, words: list[str]) -> dict:
    log = [r for r in metrics.read(run / metrics.LOG) if r["kind"] == "train"]
    return {
        "benchmark": "preg",
        "similarity": similarity,
        "decay": decay,
        "preg": preg,
        "seed": seed,
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


if __name__ == "__main__":
    main()
