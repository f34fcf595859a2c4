"""Does it learn? DINO and CLeVER on CIFAR-10, several seeds, against an untrained encoder and raw pixels.

    clever-fast convert cifar10 cifar-10-binary.tar.gz cifar10
    python -m clever_fast.benchmarks.cifar10 --data cifar10 --out runs/cifar10

Every run is a `clever-fast pretrain` and an `evaluate knn`; what is done already is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from clever_fast import metrics
from clever_fast.benchmarks.measure import DOCS, append, conditions, write_section

RESULTS = Path(__file__).parent / "results" / "cifar10.jsonl"
METHODS = ("dino", "clever")
K = "20"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/ of class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder of the subset and the runs")
    parser.add_argument("--images", type=int, default=500, help="training images of each class: the first by name")
    parser.add_argument("--queries", type=int, default=200, help="test images of each class: the first by name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="resnet10_cifar10", help="recipe's name without its method")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options, overrides = parser.parse_known_args()
    data = subset(options.data, options.out / "data", {"train": options.images, "test": options.queries})
    for seed in options.seeds:
        for method in METHODS:
            run = options.out / f"{method}_seed{seed}"
            if not (run / "knn.json").exists():
                one(f"{method}_{options.recipe}", data, run, ["--recipe.seed", str(seed), *overrides])
                append(options.results, record(method, seed, run, options, overrides))
    records = [json.loads(line) for line in options.results.read_text().splitlines()]
    if options.results == RESULTS:
        write_section(DOCS / "cifar10.md", "cifar10", table(records))
        draw(records, DOCS / "cifar10.png")


def subset(data: Path, out: Path, counts: dict[str, int]) -> Path:
    """Copies the first files of each class by name; the same files every time."""
    for split, count in counts.items():
        for folder in sorted(path for path in (data / split).iterdir() if path.is_dir()):
            (out / split / folder.name).mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.iterdir())[:count]:
                if not (out / split / folder.name / path.name).exists():
                    shutil.copyfile(path, out / split / folder.name / path.name)
    return out


def one(recipe: str, data: Path, run: Path, overrides: list[str]) -> None:
    places = ["--data", str(data), "--run", str(run)]
    for words in (
        ["pretrain", "--recipe", recipe, *places, "--knn_every", "6", "--log_every", "100", *overrides],
        ["evaluate", "knn", *places],
    ):
        subprocess.run([sys.executable, "-m", "clever_fast.cli", *words], check=True)


def record(method: str, seed: int, run: Path, options: argparse.Namespace, overrides: list[str]) -> dict:
    log = metrics.read(run / metrics.LOG)
    last = [r for r in log if r["kind"] == "train"][-1]
    result = json.loads((run / "knn.json").read_text())
    return {
        "benchmark": "cifar10",
        "method": method,
        "seed": seed,
        "recipe": f"{method}_{options.recipe}",
        "overrides": overrides,
        "images": result["bank"],
        "queries": result["queries"],
        "epochs": last["epoch"],
        "seconds": last["seconds"],
        "accuracy": result["accuracy"],
        "knn": [{name: r[name] for name in r if name not in ("kind", "step")} for r in log if r["kind"] == "knn"],
        **conditions(),
    }


def table(records: list[dict]) -> str:
    """Means over seeds with their standard deviation, and what training adds."""
    lines = ["| features | DINO | CLeVER |", "|---|---|---|"]
    for row in ("trained all", "trained IR", "trained EF", "untrained all", "raw pixels"):
        cells = [spread([r["accuracy"][row][K] for r in of(records, m) if row in r["accuracy"]]) for m in METHODS]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    for base in ("untrained all", "raw pixels"):
        gains = [[r["accuracy"]["trained all"][K] - r["accuracy"][base][K] for r in of(records, m)] for m in METHODS]
        cells = [f"**+{statistics.mean(g):.1f}** (lowest +{min(g):.1f})" for g in gains]
        lines.append(f"| trained all over {base} | {' | '.join(cells)} |")
    last = records[-1]
    minutes = statistics.mean(r["seconds"] for r in records) / 60
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    seeds = sorted({r["seed"] for r in records})
    overrides = f" with `{' '.join(last['overrides'])}`" if last["overrides"] else ""
    return "\n".join(lines) + (
        f"\n\nk-NN accuracy in percent, k = {K}: {last['images']:,} labelled images vote on {last['queries']:,} test "
        f"images; mean ± standard deviation over the seeds {seeds}. Recipes `dino_...` and "
        f"`{last['recipe']}`{overrides}, {last['epochs']:.0f} epochs, {minutes:.1f} minutes of training a run "
        f"on {last['cores']} cores of an {last['cpu']}, {last['date']}, commit {last['commit']}; {versions}.\n\n"
        "![k-NN accuracy against epochs and wall time](cifar10.png)\n"
    )


def of(records: list[dict], method: str) -> list[dict]:
    return [r for r in records if r["method"] == method]


def spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


def draw(records: list[dict], path: Path) -> None:
    """k-NN accuracy against epochs and wall time, one thin line a seed and the mean of each method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, constrained_layout=True)
    for method, color in zip(METHODS, ("#8a94a6", "#2f6fdb")):
        runs = [r["knn"] for r in of(records, method)]
        for axis, x, scale in ((axes[0], "epoch", 1), (axes[1], "seconds", 60)):
            for run in runs:
                axis.plot([p[x] / scale for p in run], [p[f"knn@{K} all"] for p in run], color=color, alpha=0.35)
            mean = [[statistics.mean(p[key] for p in points) for key in (x, f"knn@{K} all")] for points in zip(*runs)]
            axis.plot([m[0] / scale for m in mean], [m[1] for m in mean], color=color, linewidth=2.4, label=method)
    for name, style in (("untrained all", ":"), ("raw pixels", "--")):
        level = statistics.mean(r["accuracy"][name][K] for r in records)
        for axis in axes:
            axis.axhline(level, color="black", linestyle=style, linewidth=1, label=name.removesuffix(" all"))
    axes[0].set(xlabel="epoch", ylabel=f"k-NN accuracy (%), k = {K}")
    axes[1].set(xlabel="minutes of training")
    axes[0].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
