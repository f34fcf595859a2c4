r"""Is CLeVER more robust than DINO? Both on CIFAR-10, several seeds, tested on perturbed images, whole and in parts.

    python -m clever_fast.benchmarks.studies.perturbed --data cifar10 --out runs/perturbed \
        --images 1000 200 --recipe.epochs 8

Every run is a `clever-fast pretrain` of one policy and an `evaluate robustness`. What is done already is not done
again.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.benchmarks.studies.ablations import subset
from clever_fast.benchmarks.studies.cifar10 import METHODS, command, gained, spread
from clever_fast.environment import conditions
from clever_fast.monitoring import metrics

RESULTS = Path(__file__).resolve().parents[1] / "results" / "perturbed.jsonl"
TESTS = ("Orig", "CJ", "Ro", "ET")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/ of class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--images", type=int, nargs=2, help="of each class, to train on and to test on; all by default")
    parser.add_argument("--policies", nargs="+", default=["caug"], help="of pretraining: baug, caug, caug_plus")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="resnet10_cifar10", help="recipe's name without its method")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options, overrides = parser.parse_known_args()
    data = options.data
    if options.images:
        data = subset(data, options.out / "data", dict(zip(("train", "test"), options.images, strict=True)))
    for policy in options.policies:
        for seed in options.seeds:
            for method in METHODS:
                run = options.out / f"{method}_{policy}_seed{seed}"
                places = ("--data", data, "--run", run)
                if not (run / "measured").exists():
                    chosen = ("--recipe.policy", policy, "--recipe.seed", seed)
                    command("pretrain", "--recipe", f"{method}_{options.recipe}", *chosen, *places, *overrides)
                    command("evaluate", "robustness", "--perturbations", f"[{','.join(TESTS)}]", *places)
                    append(options.results, record(run, method, policy, seed, options.recipe, overrides))
                    (run / "measured").touch()
    if options.results == RESULTS:
        records = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        write_section(DOCS / "cifar10.md", "perturbed", table(records))


def record(run: Path, method: str, policy: str, seed: int, recipe: str, overrides: list[str]) -> dict:
    last = [r for r in metrics.read(run / metrics.LOG) if r["kind"] == "train"][-1]
    found = json.loads((run / "robustness.json").read_text())
    return {
        "benchmark": "perturbed",
        "method": method,
        "policy": policy,
        "seed": seed,
        "recipe": f"{method}_{recipe}",
        "overrides": overrides,
        "epochs": last["epoch"],
        "seconds": last["seconds"],
        "images": found["bank"],
        "queries": found["queries"],
        "accuracy": [
            {key: row[key] for key in ("classifier", "part", "test", "accuracy")}
            for row in found["rows"]
            if row.get("shown", True)
        ],
        **conditions(),
    }


def table(records: list[dict]) -> str:
    """Means over seeds with their standard deviation; CLeVER less DINO, seed by seed, with the range."""
    found: dict[tuple, dict[int, float]] = defaultdict(dict)
    for r in records:
        for row in r["accuracy"]:
            found[r["policy"], row["classifier"], r["method"], row["part"], row["test"]][r["seed"]] = row["accuracy"]
    lines = [
        f"| pretrained with | classifier | features | {' | '.join(TESTS)} |",
        f"|---|---|---|{'---|' * len(TESTS)}",
    ]
    kinds = dict.fromkeys(key[:4] for key in found)
    for policy, classifier, method, part in sorted(kinds, key=lambda kind: (kind[:2], kind[2] != "dino")):
        cells = [spread(list(found[policy, classifier, method, part, test].values())) for test in TESTS]
        lines.append(f"| {policy} | {classifier} | {method} {part} | {' | '.join(cells)} |")
        if method == "clever":
            pairs = [
                (found[policy, classifier, "clever", part, test], found[policy, classifier, "dino", "all", test])
                for test in TESTS
            ]
            gains = [[ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()] for ours, theirs in pairs]
            lines.append(
                f"| {policy} | {classifier} | clever {part} less dino all | {' | '.join(map(gained, gains))} |"
            )
    last = records[-1]
    minutes = sorted(r["seconds"] / 60 for r in records)
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items() if "torch" in name)
    overrides = f" with `{' '.join(last['overrides'])}`" if last["overrides"] else ""
    return "\n".join(lines) + (
        f"\n\nAccuracy in percent on {last['queries']:,} perturbed test images, mean ± standard deviation over "
        f"{len({r['seed'] for r in records})} seeds; differences seed by seed, with their range. {last['images']:,} "
        f"training images, {last['epochs']:.0f} epochs{overrides}, {minutes[0]:.0f} to {minutes[-1]:.0f} minutes of "
        f"training a run on a shared core of an {last['cpu']}, {last['date']}, commit {last['commit']}; {versions}.\n"
    )


if __name__ == "__main__":
    main()
