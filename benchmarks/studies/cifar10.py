"""Does it learn? DINO and CLeVER on CIFAR-10, several seeds, against an untrained encoder and raw pixels.

    clever-fast convert cifar10 cifar-10-binary.tar.gz cifar10
    python -m clever_fast.benchmarks.studies.cifar10 --data cifar10 --out runs/cifar10

Every run is a `clever-fast pretrain` on all training images without their labels, and an `evaluate knn` for all numbers
of labelled images. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.environment import conditions
from clever_fast.monitoring import metrics

RESULTS = Path(__file__).resolve().parents[1] / "results" / "cifar10.jsonl"
METHODS = ("dino", "clever")
K = "20"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/ of class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 500, 5000], help="labelled images of each class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="resnet10_cifar10", help="recipe's name without its method")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options, overrides = parser.parse_known_args()
    for seed in options.seeds:
        for method in METHODS:
            run = options.out / f"{method}_seed{seed}"
            if not (run / "measured").exists():
                recipe = f"{method}_{options.recipe}"
                command("pretrain", "--recipe", recipe, "--recipe.seed", seed, *places(options, run), *overrides)
                command("evaluate", "knn", *places(options, run), "--labels", options.labels)
                append(options.results, record(method, seed, run, options, overrides))
                (run / "measured").touch()
    records = [json.loads(line) for line in options.results.read_text().splitlines()]
    if options.results == RESULTS:
        write_section(DOCS / "cifar10.md", "cifar10", table(records))
        draw(records, DOCS / "cifar10.png")


def places(options: argparse.Namespace, run: Path) -> tuple:
    return "--data", options.data, "--run", run


def command(*words) -> None:
    subprocess.run([sys.executable, "-m", "clever_fast.cli", *map(str, words)], check=True)


def record(method: str, seed: int, run: Path, options: argparse.Namespace, overrides: list[str]) -> dict:
    last = [r for r in metrics.read(run / metrics.LOG) if r["kind"] == "train"][-1]
    found = json.loads((run / "knn.json").read_text())
    accuracy: dict[int, dict[str, dict[int, float]]] = {}
    for row in found["rows"]:
        accuracy.setdefault(row["images"], {}).setdefault(row["features"], {})[row["k"]] = row["accuracy"]
    return {
        "benchmark": "cifar10",
        "method": method,
        "seed": seed,
        "recipe": f"{method}_{options.recipe}",
        "overrides": overrides,
        "queries": found["queries"],
        "epochs": last["epoch"],
        "seconds": last["seconds"],
        "accuracy": accuracy,
        **conditions(),
    }


def table(records: list[dict]) -> str:
    """Means over seeds with their standard deviation, and what training adds."""
    banks = list(records[0]["accuracy"])
    lines = [
        f"| | {' | '.join(f'{int(bank):,} labels' for bank in banks)} |",
        f"|---|{'---|' * len(banks)}",
    ]
    for method in METHODS:
        chosen = [r for r in records if r["method"] == method]
        for row in ("trained all", "trained IR", "trained EF", "untrained all"):
            if row in chosen[0]["accuracy"][banks[0]]:
                cells = [spread([r["accuracy"][bank][row][K] for r in chosen]) for bank in banks]
                lines.append(f"| {method}, {row} | {' | '.join(cells)} |")
        for base in ("untrained all", "raw pixels"):
            gains = [[gain(r["accuracy"][bank], base) for r in chosen] for bank in banks]
            cells = [gained(g) for g in gains]
            lines.append(f"| {method}, trained all over {base} | {' | '.join(cells)} |")
    pixels = [f"{records[0]['accuracy'][bank]['raw pixels'][K]:.1f}" for bank in banks]
    lines.append(f"| raw pixels | {' | '.join(pixels)} |")
    last = records[-1]
    minutes = sorted(r["seconds"] / 60 for r in records)
    recipes = " and ".join(sorted({f"`{r['recipe']}`" for r in records}))
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    overrides = f" with `{' '.join(last['overrides'])}`" if last["overrides"] else ""
    return "\n".join(lines) + (
        f"\n\nk-NN accuracy in percent, k = {K}, on {last['queries']:,} test images; mean ± standard deviation over "
        f"{len({r['seed'] for r in records})} seeds, gains with their range. Recipes {recipes}{overrides}, "
        f"{last['epochs']:.0f} epochs, {minutes[0]:.0f} to {minutes[-1]:.0f} minutes of training a run on "
        f"{last['cores']} core(s) of an {last['cpu']}, {last['date']}, commit {last['commit']}; {versions}.\n\n"
        "![k-NN accuracy against the number of labelled images](cifar10.png)\n"
    )


def gain(accuracy: dict, base: str) -> float:
    return accuracy["trained all"][K] - accuracy[base][K]


def gained(gains: list[float]) -> str:
    """Their mean with their range."""
    return f"**{statistics.mean(gains):+.1f}** ({min(gains):+.1f} to {max(gains):+.1f})"


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


def draw(records: list[dict], path: Path) -> None:
    """Accuracy against the number of labels: the mean of each method with its range, and both baselines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4), constrained_layout=True)
    banks = [int(bank) for bank in records[0]["accuracy"]]

    def line(values: list[list[float]], label: str, **style) -> None:
        axis.plot(banks, [statistics.mean(v) for v in values], marker="o", label=label, **style)
        axis.fill_between(banks, [min(v) for v in values], [max(v) for v in values], alpha=0.2, color=style["color"])

    for method, color in zip(METHODS, ("#d9772b", "#2f6fdb")):
        chosen = [r for r in records if r["method"] == method]
        line([[r["accuracy"][str(bank)]["trained all"][K] for r in chosen] for bank in banks], method, color=color)
    for row, style in (("untrained all", ":"), ("raw pixels", "--")):
        values = [[r["accuracy"][str(bank)][row][K] for r in records] for bank in banks]
        line(values, row.removesuffix(" all"), color="#555555", linestyle=style)
    axis.set(xscale="log", xlabel="labelled images that vote", ylabel=f"k-NN accuracy (%), k = {K}")
    axis.set_xticks(banks, [f"{bank:,}" for bank in banks], minor=False)
    axis.minorticks_off()
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
