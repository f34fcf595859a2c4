"""What PReg prevents: the norms of both heads and the orthogonality loss over a run, with and without it.

    clever-fast synthesize images --label material
    python -m clever_fast.benchmarks.studies.preg --data images --out runs/preg

Every run is a `clever-fast pretrain` of a minute on one CPU core: each similarity with and without PReg, at each weight
decay, several seeds. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import product
from pathlib import Path

from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.command_line import parse_pretrain
from clever_fast.environment import conditions
from clever_fast.monitoring import metrics
from clever_fast.recipes import RECIPES
from clever_fast.train import train

RESULTS = Path(__file__).resolve().parents[1] / "results" / "preg.jsonl"
RECIPE = "clever_demo"
GAINS = RECIPES[RECIPE].method.prototypes  # of the last layer: 1 each, frozen
SHORT = ("--recipe.global_size", "16", "--recipe.batch_size", "32", "--recipe.epochs", "8")
SIMILARITIES = {"cosine": "the released cosine", "dot": "the paper's dot product"}
WEIGHTS = ("0", "0.001")  # of PReg: none, and the released one
# Where the weight decay starts and ends. The sum of learning rate times decay is 3.4 over a published run (200 epochs
# of 247 steps) and 0.037 over these 496 steps: "hundredfold", 3.7, takes off as much as a whole published run.
DECAYS = {"none": ("0", "0"), "published": ("0.04", "0.4"), "hundredfold": ("4", "40")}
CURVES = ("ir_norm_squared", "ef_norm_squared", "orthogonality", "invariance")
COLORS = {"0": "#d9772b", "0.001": "#2f6fdb"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ of class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--decays", nargs="+", choices=DECAYS, default=list(DECAYS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options, overrides = parser.parse_known_args()
    conditions()  # as they are before the first run
    for setting in product(options.seeds, options.decays, SIMILARITIES, WEIGHTS):
        run = options.out / "seed{}_decay_{}_{}_preg_{}".format(*setting)
        if not (run / "measured").exists():
            words = [*command(*setting), *overrides]
            train(*parse_pretrain([*words, "--data", str(options.data), "--run", str(run)]))
            if not (run / "encoder.safetensors").exists():
                raise SystemExit(f"{run} was told to stop; the same command goes on")
            append(options.results, record(setting, words, run))
            (run / "measured").touch()
    if options.results == RESULTS:
        publish([json.loads(line) for line in RESULTS.read_text().splitlines()])


def command(seed: int, decay: str, similarity: str, weight: str) -> list[str]:
    """The words of `clever-fast pretrain`, without its folders."""
    start, end = DECAYS[decay]
    method = ["--recipe.method.orthogonality", similarity, "--recipe.method.preg_weight", weight]
    decays = ["--recipe.weight_decay", start, "--recipe.weight_decay_end", end]
    return ["--recipe", RECIPE, *SHORT, "--recipe.seed", str(seed), *decays, *method]


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
    """Means over the seeds with their range, at the end of the runs."""
    columns = ("IR norm²", "EF norm²", "orthogonality", "cross-entropy")
    lines = [f"| similarity | weight decay | PReg | seeds | {' | '.join(columns)} |", f"|{'---|' * (4 + len(columns))}"]
    for similarity, decay, weight in product(SIMILARITIES, DECAYS, WEIGHTS):
        chosen = select(records, similarity, decay, weight)
        if not chosen:
            continue
        norms = [spread([trained(r, name)[-1] for r in chosen], ".1f") for name in CURVES[:2]]
        losses = [spread([r[name][-1] for r in chosen], ".3g") for name in CURVES[2:]]
        cells = (similarity, decay, weight, len(chosen), *norms, *losses)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    first, last = records[0], records[-1]
    seconds = sorted(r["seconds"] for r in records)
    start = [statistics.mean(trained(r, name)[0] for r in records) for name in CURVES[:2]]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    commits = " and ".join(sorted({r["commit"] for r in records}))
    return "\n".join(lines) + (
        f"\n\nAt the end of {first['step'][-1]} steps: means over the seeds, the lowest and highest in brackets. At "
        f"step {first['step'][0]} the heads have {start[0]:.0f} (IR) and {start[1]:.0f} (EF). Norms are of the trained "
        f"weights, without the frozen gains of the last layer, which add {GAINS} to either. "
        f"{len(records)} runs of `clever-fast pretrain {' '.join(first['words'][:2])} {' '.join(SHORT)}`, "
        f"{seconds[0]:.0f} to {seconds[-1]:.0f} s each on a shared core of "
        f"an {last['cpu']}, {last['date']}, commit {commits}; {versions}.\n\n"
        "![Squared norms of both heads and the orthogonality loss over the runs](preg.png)\n"
    )


def select(records: list[dict], similarity: str, decay: str, weight: str) -> list[dict]:
    wanted = {"similarity": similarity, "decay": decay, "weight": weight}
    return [r for r in records if wanted.items() <= r.items()]


def trained(record: dict, name: str) -> list[float]:
    """A head's squared norm over the run without its frozen gains."""
    return [value - GAINS for value in record[name]]


def spread(values: list[float], digits: str) -> str:
    mean, low, high = (f"{value:{digits}}" for value in (statistics.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def draw(records: list[dict], path: Path) -> None:
    """For each similarity a row of norms and a row of losses, a column for each weight decay, a line for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D

    figure, axes = plt.subplots(4, len(DECAYS), figsize=(11, 11), sharex=True, constrained_layout=True)
    for row, column in ((0, 1), (1, 1), (1, 2), (2, 1), (3, 1), (3, 2)):
        axes[row, column].sharey(axes[row, 0])
    for column, decay in enumerate(DECAYS):
        for pair, (similarity, title) in enumerate(SIMILARITIES.items()):
            norms, loss = axes[2 * pair, column], axes[2 * pair + 1, column]
            for weight in WEIGHTS:
                for r in select(records, similarity, decay, weight):
                    style = {"color": COLORS[weight], "linewidth": 1.3, "alpha": 0.8}
                    norms.plot(r["step"], trained(r, "ef_norm_squared"), **style)
                    norms.plot(r["step"], trained(r, "ir_norm_squared"), linestyle=(0, (4, 2)), **style)
                    loss.plot(r["step"], r["orthogonality"], **style)
            norms.set(yscale="log" if decay == "hundredfold" else "linear")
            if column == 0:
                norms.set(ylabel=f"{title}\nsquared norm of a head")
                loss.set(ylabel=f"{title}\northogonality loss")
        axes[0, column].set(title=f"weight decay: {decay}")
        axes[-1, column].set(xlabel="step")
    for row in (1, 3):
        axes[row, 0].set_ylim(bottom=0)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    handles = [Line2D([], [], color=COLORS[weight], label=f"PReg {weight}") for weight in WEIGHTS]
    for name, style in (("EF head", "-"), ("IR head", "--")):
        handles.append(Line2D([], [], color="#555555", linestyle=style, label=name))
    figure.legend(handles=handles, ncols=4, loc="outside upper center", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def publish(records: list[dict]) -> None:
    write_section(DOCS / "preg.md", "preg", table(records))
    draw(records, DOCS / "preg.png")


if __name__ == "__main__":
    main()
