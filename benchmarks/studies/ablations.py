"""Two of the paper's ablations, small: the separation ratio and PReg's lambda on a part of CIFAR-10, three seeds.

    clever-fast convert cifar10 cifar-10-binary.tar.gz cifar10
    python -m clever_fast.benchmarks.studies.ablations --data cifar10 --out runs/ablations

Each is a `clever-fast sweep`; what is done already is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml

from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.environment import conditions
from clever_fast.methods import Clever
from clever_fast.sweeps import table
from clever_fast.sweeps.grid import read, record, score, trials
from clever_fast.sweeps.workers import work

RESULTS = Path(__file__).resolve().parents[1] / "results" / "ablations.jsonl"
SEEDS = [0, 1, 2]
GRIDS = {
    "separation_ratio": {"method.separation_ratio": [0.5, 0.8, 0.95], "seed": SEEDS},
    "preg_weight": {"method.preg_weight": [0.0, 0.1], "seed": SEEDS},  # 0.001 is the other's run at 0.8
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/ of class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--sweeps", nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument(
        "--images", type=int, nargs=2, default=[2500, 1000], help="of each class, to train on and to test on"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--labels", type=int, default=50, help="training images of each class that vote")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that records are added to")
    options, overrides = parser.parse_known_args()
    data = subset(options.data, options.out / "data", dict(zip(("train", "test"), options.images, strict=True)))
    for name in options.sweeps:
        file = options.out / f"{name}.yaml"
        settings = {"recipe": "clever_resnet10_cifar10", "set": {"epochs": options.epochs}, "grid": GRIDS[name]}
        file.write_text(yaml.safe_dump(settings, sort_keys=False))
        plan = trials(read(str(file)), data, options.out / name, overrides, options.labels)
        for outcome in work([trial for trial in plan if not score(trial)], [None]):
            print(outcome.line, flush=True)
            if score(outcome.trial):
                append(
                    options.results, {"benchmark": "ablations", "sweep": name, **record(outcome.trial), **conditions()}
                )
            elif not outcome.failed:
                return  # told to stop
    if options.results == RESULTS:
        publish([json.loads(line) for line in RESULTS.read_text().splitlines()])


def subset(data: Path, folder: Path, images: dict[str, int]) -> Path:
    """A folder of links to the first images, by name, of every class of each split."""
    for split, count in images.items():
        for source in sorted((data / split).iterdir()):
            target = folder / split / source.name
            if not source.is_dir() or target.exists():
                continue
            target.mkdir(parents=True)
            for path in sorted(source.iterdir())[:count]:
                (target / path.name).symlink_to(path.resolve())
    return folder


def publish(records: list[dict]) -> None:
    """The tables and the plot of docs/ablations.md."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sweeps = {name: of_sweep(name, records) for name in GRIDS}
    figure, axes = plt.subplots(1, len(sweeps), figsize=(10, 4.2), constrained_layout=True, sharey=True)
    for axis, chosen in zip(axes, sweeps.values(), strict=True):
        table.panel(axis, chosen)
    axes[1].set_ylabel("")
    axes[1].get_legend().remove()
    figure.savefig(DOCS / "ablations.png", dpi=120)
    plt.close(figure)
    first, last = records[0], records[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items() if "torch" in name)
    seconds = sorted(record["seconds"] for record in records)
    text = "\n\n".join(map(table.table, sweeps.values())) + (
        f"\n\n`clever_resnet10_cifar10`, {first['epochs']:.0f} epochs of {first['images']:,} images without labels; "
        f"{len(records)} runs of {seconds[0]:.0f} to {seconds[-1]:.0f} s of training on {last['cores']} core of an "
        f"{last['cpu']} that did other work too, {last['date']}, commit {last['commit']}; {versions}.\n\n"
        "![k-NN accuracy against the separation ratio and lambda](ablations.png)\n"
    )
    write_section(DOCS / "ablations.md", "ablations", text)


def of_sweep(name: str, records: list[dict]) -> list[dict]:
    """The records at the released values of the other swept fields, by their point in this sweep."""
    others = [field for field in GRIDS if field != name]
    default = Clever()
    return [
        record | {"point": {f"method.{name}": record["recipe"]["method"][name], "seed": record["recipe"]["seed"]}}
        for record in records
        if all(record["recipe"]["method"][field] == getattr(default, field) for field in others)
    ]


if __name__ == "__main__":
    main()
