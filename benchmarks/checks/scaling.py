"""Images per second on 1 to 1,024 GPUs, predicted from what one does, and what becomes the limit.

    python -m clever_fast.benchmarks.checks.scaling                                       # the page and its plot
    python -m clever_fast.benchmarks.checks.scaling --recipe clever_vits16_in1k --tflops 989 --share 0.3 --batch 256

The model is a step that waits for what it cannot hide of the all-reduce, and a loader whose storage all nodes share:

    t(n)    = step + max(0, allreduce(n) - overlap * step)
    rate(n) = min(n * batch / t(n),  n * decode_rate,  storage_bandwidth / image_bytes)
    ring(n) = 2 (n - 1)/n * bytes/bandwidth + 2 (n - 1) latency
    tree(n) = 2 * bytes/bandwidth + 2 ceil(log2 n) latency       (pipelined, both directions of two trees in use)

Source: Patarasuk and Yuan 2009 (ring); Sanders, Speck, Träff 2009 (two trees). `scaling_check.py` holds it against
runs of two processes.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

import torch

from clever_fast.benchmarks.measure import DOCS, write_section
from clever_fast.errors import UserError
from clever_fast.options import Recipe
from clever_fast.performance.flops import SCAN_MS, SHARES, gflop_per_image, predicted_seconds
from clever_fast.recipes import RECIPES, find_recipe

COUNTS = tuple(2**i for i in range(11))
ROWS = (1, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the prediction rests on. Bytes, seconds, images and FLOP, each per second where it is a rate.

    Args:
        batch: images of one GPU's step.
        step: seconds of a step of one GPU alone, its data ready.
        gradient_bytes: what the all-reduce sends of one step.
        overlap: share of the step that the all-reduce can hide behind.
        gpus_per_node: that reach each other without the network.
        node_bandwidth: bytes/s of the all-reduce within a node.
        network_bandwidth: bytes/s of the all-reduce from node to node: all network cards of a node together.
        node_latency: seconds of one message within a node.
        network_latency: seconds of one message from node to node.
        storage_bandwidth: bytes/s that all nodes together read.
        image_bytes: of an encoded image; ImageNet-1k's mean is about 110 kB.
        decode_rate: images/s that the loader of one GPU makes.
    """

    batch: int = 128
    step: float
    gradient_bytes: float
    overlap: float = 0.5
    gpus_per_node: int = 8
    node_bandwidth: float = 200e9
    network_bandwidth: float = 25e9
    node_latency: float = 3e-6
    network_latency: float = 10e-6
    storage_bandwidth: float = 10e9
    image_bytes: float = 110e3
    decode_rate: float = 2500.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, may_be_zero = (
                getattr(self, field.name),
                field.name in ("overlap", "gradient_bytes") or "latency" in field.name,
            )
            if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
                raise UserError(f"{field.name} is {value}; it must be {'at least' if may_be_zero else 'above'} 0")
        if self.overlap > 1:
            raise UserError(f"overlap is {self.overlap}, a share of the step; it must be at most 1")


@dataclass(frozen=True)
class Prediction:
    gpus: int
    rate: float  # images/s
    efficiency: float  # of as many GPUs that wait for nothing
    limit: str  # compute, all-reduce, decode or storage
    exposed: float  # seconds of the all-reduce that a step waits for


def ring(n: int, size: float, bandwidth: float, latency: float) -> float:
    """Seconds of an all-reduce of `size` bytes over n processes in a ring."""
    return 2 * (n - 1) / n * size / bandwidth + 2 * (n - 1) * latency


def tree(n: int, size: float, bandwidth: float, latency: float) -> float:
    """Seconds over two pipelined binary trees; nothing for one process."""
    return 2 * size / bandwidth + 2 * math.ceil(math.log2(n)) * latency if n > 1 else 0.0


def all_reduce(n: int, a: Assumptions) -> float:
    """Seconds of the faster of ring and tree, at the speed of the slowest link that it crosses."""
    inside = n <= a.gpus_per_node
    link = (a.node_bandwidth, a.node_latency) if inside else (a.network_bandwidth, a.network_latency)
    return min(form(n, a.gradient_bytes, *link) for form in (ring, tree))


def predict(n: int, a: Assumptions) -> Prediction:
    """Images/s of n GPUs, and what limits them."""
    exposed = max(0.0, all_reduce(n, a) - a.overlap * a.step)
    rates = {
        "all-reduce" if exposed else "compute": n * a.batch / (a.step + exposed),
        "decode": n * a.decode_rate,
        "storage": a.storage_bandwidth / a.image_bytes,
    }
    limit = min(rates, key=rates.get)
    return Prediction(n, rates[limit], rates[limit] * a.step / (n * a.batch), limit, exposed)


def onset(name: str, a: Assumptions, most: int = COUNTS[-1]) -> int | None:
    """The fewest GPUs at which `name` is the limit; None up to `most`."""
    return next((n for n in range(1, most + 1) if predict(n, a).limit == name), None)


@cache
def gradient_bytes(recipe: Recipe) -> int:
    """Bytes of the float32 gradients of a recipe's trained parameters, counted on networks without memory."""
    with torch.device("meta"):
        method = recipe.build()
    return sum(4 * parameter.numel() for parameter in method.parameters() if parameter.requires_grad)


def of_gpu(recipe: Recipe, tflops: float, share: float, **others: float) -> Assumptions:
    """Assumptions for a GPU whose step is predicted: GFLOP of the recipe over a share of the peak, and its scans.

    The scans take as long as counted for an A100 (cost.SCAN_MS), whatever the GPU.
    """
    batch = others.get("batch", Assumptions.batch)
    scan = SCAN_MS["A100"].get(recipe.backbone.name, 0.0)
    step = others.pop("step", None) or batch * predicted_seconds(gflop_per_image(recipe), tflops, share, scan)
    counted = {"step": step, "gradient_bytes": gradient_bytes(recipe)}
    return Assumptions(**counted | others)


def table(assumed: dict[str, Assumptions]) -> str:
    """Images/s, efficiency and limit of each set of assumptions. Markdown."""
    lines = [f"| GPUs | {' | '.join(assumed)} |", f"|---:|{'---|' * len(assumed)}"]
    for n in ROWS:
        found = [predict(n, a) for a in assumed.values()]
        cells = [f"{p.rate:,.0f} images/s, {p.efficiency:.0%}, {p.limit}" for p in found]
        lines.append(f"| {n:,} | {' | '.join(cells)} |")
    lines.append("")
    for name, a in assumed.items():
        points = {limit: onset(limit, a) for limit in ("all-reduce", "decode", "storage")}
        said = [f"{limit} from {n:,} GPU{'s' * (n > 1)}" if n else f"{limit} never" for limit, n in points.items()]
        lines.append(
            f"- {name}: step {1e3 * a.step:.0f} ms, gradients {a.gradient_bytes / 1e6:.0f} MB; {', '.join(said)}."
        )
    return "\n".join(lines)


def draw(assumed: dict[str, Assumptions], path: Path) -> None:
    """Images/s against GPUs on logarithmic axes: prediction, and what would be if only one thing limited."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    counts = range(1, COUNTS[-1] + 1)
    figure, axes = plt.subplots(
        1, len(assumed), figsize=(4.4 * len(assumed), 4), constrained_layout=True, squeeze=False, sharey=True
    )
    for axis, (name, a) in zip(axes.flat, assumed.items(), strict=True):
        found = [predict(n, a) for n in counts]
        color = {"color": "#2f6fdb", "linewidth": 6, "alpha": 0.35}
        axis.plot(counts, [p.rate for p in found], **color, label="predicted", solid_capstyle="round")
        axis.plot(counts, [n * a.batch / a.step for n in counts], ":", color="#333333", label="compute alone")
        reduced = [p.gpus * a.batch / (a.step + p.exposed) for p in found]
        axis.plot(counts, reduced, "--", color="#d9772b", label="compute and all-reduce")
        axis.plot(counts, [n * a.decode_rate for n in counts], "-.", color="#3a9d5d", label="decode")
        axis.axhline(a.storage_bandwidth / a.image_bytes, color="#a04bbf", linewidth=1, label="storage")
        axis.set(xscale="log", yscale="log", xlabel="GPUs", title=name)
        axis.set_xticks(COUNTS[::2], [f"{n}" for n in COUNTS[::2]])
        axis.minorticks_off()
        axis.title.set_fontsize(9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("images/s, predicted")
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def page() -> dict[str, Assumptions]:
    """What docs/scaling.md shows: a published speed, and an assumed share of a newer GPU's peak on two networks."""
    vits, share = RECIPES["clever_vits16_in1k"], SHARES["vit"].low
    return {
        "A100 at 9 % of 312 TFLOP/s": of_gpu(vits, 312, 0.09),
        f"H100 at {share:.0%} of 989 TFLOP/s".replace("%", " %"): of_gpu(vits, 989, share),
        f"H100 at {share:.0%}, 25 Gbit/s Ethernet".replace("%", " %"): of_gpu(
            vits, 989, share, network_bandwidth=3.125e9, network_latency=50e-6
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", help="predict this one instead of writing the page")
    parser.add_argument("--tflops", type=float, default=312.0, help="peak of one GPU in TFLOP/s")
    parser.add_argument("--share", type=float, default=0.09, help="of the peak that a step reaches")
    parser.add_argument("--plot", type=Path, default=None, help="file of the plot")
    for field in fields(Assumptions):
        kind = int if field.name in ("batch", "gpus_per_node") else float
        parser.add_argument(f"--{field.name}", type=kind, default=None)
    options = vars(parser.parse_args())
    others = {field.name: value for field in fields(Assumptions) if (value := options[field.name]) is not None}
    if options["recipe"] is None:
        assumed = {name: replace(a, **others) for name, a in page().items()}
    else:
        recipe = find_recipe(options["recipe"])
        assumed = {options["recipe"]: of_gpu(recipe, options["tflops"], options["share"], **others)}
    print(table(assumed))
    if options["plot"]:
        draw(assumed, options["plot"])
    elif options["recipe"] is None and not others:
        write_section(
            DOCS / "scaling.md", "scaling", table(assumed) + "\n\n![Images per second against GPUs](scaling.png)\n"
        )
        draw(assumed, DOCS / "scaling.png")


if __name__ == "__main__":
    main()
