"""The tables of README.md and docs/, made from the records."""

from __future__ import annotations

from pathlib import Path

from clever_fast.benchmarks import ops, scan
from clever_fast.benchmarks.measure import write_section
from clever_fast.benchmarks.records import number, training
from clever_fast.benchmarks.report import PUBLISHED_CROPS, in_order, where
from clever_fast.errors import UserError
from clever_fast.options import Recipe
from clever_fast.performance.flops import IMAGES, PEAK_TFLOPS, formula, gflop_per_image, predicted_rates
from clever_fast.recipes import NETWORKS, RECIPES

DATA = {"in100": "IN-100", "in1k": "IN-1k"}


def write(records: list[dict], checkout: Path) -> list[Path]:
    """Makes the tables again for which there are records; returns the pages written.

    Raises:
        UserError: no checkout of this project is there.
    """
    rows = training(records)
    made: dict[tuple[str, str], str] = {("docs/speed.md", "expected"): expected(rows)}
    if steps := [r for r in rows if r["benchmark"] == "step"]:
        made["README.md", "bench"] = overview(rows)
        made["docs/speed.md", "step"] = step_table(steps)
    if losses := [r for r in records if r["benchmark"] == "ops"]:
        made["docs/losses.md", "ops"] = ops.table(losses)
    scans = [r for r in records if r["benchmark"] in ("selective_scan", "cross_scan") and scan.complete(r)]
    for device in {"cpu" if r["device"] == "cpu" else "cuda" for r in scans}:
        of_device = {_scan_key(r): r for r in scans if (r["device"] == "cpu") == (device == "cpu")}
        made["docs/selective-scan.md", f"times-{device}"] = scan.table(list(of_device.values()))
    for (page, name), text in made.items():
        try:
            write_section(checkout / page, name, text)
        except (OSError, ValueError, SystemExit):
            raise UserError(f"{checkout / page} has no place for the table {name!r}: give a checkout") from None
    return sorted({checkout / page for page, _ in made})


def overview(rows: list[dict]) -> str:
    """CLeVER per backbone: what was measured, and apart from it what is predicted."""
    chosen = [r for r in rows if r["benchmark"] == "step" and r["execution"] == "fast" and r["method"] == "clever"]
    places = list(dict.fromkeys((where(r), r["crops"], r["batch"]) for r in chosen))
    networks = {place: len({r["backbone"] for r in _at(chosen, place)} & _names()) for place in places}
    places = [place for place in places if networks[place] and networks[place] == max(networks.values())]
    heads = [f"{place}, {batch} images of {crops}: measured" for place, crops, batch in places]
    heads += [f"{gpu}, {PUBLISHED_CROPS}: *predicted*" for gpu in PEAK_TFLOPS]
    lines = [f"| CLeVER, images/s | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]
    for name in NETWORKS:
        backbone = RECIPES[name].backbone
        cells = [backbone.label]
        for place in places:
            rate = [r for r in _at(chosen, place) if r["backbone"] == backbone.name]
            cells.append(number(rate[-1]["images_per_second"]["median"]) if rate else "")
        cells += [_predicted(RECIPES[name], gpu) for gpu in PEAK_TFLOPS]
        lines.append(f"| {' | '.join(cells)} |")
    return (
        "\n".join(lines)
        + "\n\nPredicted as [docs/speed.md](docs/speed.md) says. The paper's run reaches 251 on an A100 with ViT-S.\n"
        + _when(chosen)
    )


def expected(rows: list[dict]) -> str:
    """Per backbone and GPU images/s, and hours of ImageNet's epochs at it."""
    on_gpu = [r for r in rows if r["device"] != "cpu" and r["crops"] == PUBLISHED_CROPS and r["benchmark"] == "step"]
    devices = sorted({r["device"] for r in on_gpu})
    heads = ["backbone", "GFLOP an image", *(f"{gpu}, images/s, *predicted*" for gpu in PEAK_TFLOPS)]
    heads += [
        f"A100, hours of {RECIPES[f'clever_vits16_{data}'].epochs} epochs of {name}, *predicted*"
        for data, name in DATA.items()
    ]
    heads += [f"{device}, images/s, measured" for device in devices]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in NETWORKS:
        recipe, backbone = RECIPES[name], RECIPES[name].backbone
        cells = [backbone.label, f"{gflop_per_image(recipe):,.1f}"]
        cells += [_predicted(recipe, gpu) for gpu in PEAK_TFLOPS]
        for data in DATA:
            hours = [IMAGES[data] * _epochs(data) / rate / 3600 for rate in predicted_rates(recipe, "A100")[::-1]]
            cells.append(" to ".join(f"{h:,.1f}" for h in hours))
        for device in devices:
            found = [
                r for r in on_gpu if (r["device"], r["backbone"], r["method"]) == (device, backbone.name, "clever")
            ]
            cells.append(f"{found[-1]['images_per_second']['median']:,.0f}" if found else "not measured")
        lines.append(f"| {' | '.join(cells)} |")
    none = "" if on_gpu else " Not measured on a GPU."
    return "\n".join(lines) + f"\n\nCLeVER, {PUBLISHED_CROPS} px, one GPU. {formula()}{none}\n"


def step_table(steps: list[dict]) -> str:
    """Every execution of every recipe that was timed."""
    executions = list(dict.fromkeys(r["execution"] for r in in_order(steps)))
    groups: dict[tuple, dict[str, dict]] = {}
    for r in in_order(steps):
        groups.setdefault((r["recipe"], where(r), r["precision"], r["crops"], r["batch"]), {})[r["execution"]] = r
    heads = ["recipe", "device", "crops", "batch", *(f"{name}, images/s" for name in executions)]
    heads += ["fast / plain", "TFLOP/s of fast", "of a large product"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (recipe, place, precision, crops, batch), found in groups.items():
        rates = {name: r["images_per_second"]["median"] for name, r in found.items()}
        ratio = f"**{rates['fast'] / rates['plain']:.2f}**" if {"fast", "plain"} <= rates.keys() else ""
        fast = found.get("fast", {})
        cells = [recipe, f"{place}, {precision}", crops, str(batch)]
        cells += [number(rates[name]) if name in rates else "" for name in executions]
        cells += [ratio, number(fast["tflops"]) if fast else ""]
        cells.append(f"{fast['share_of_peak']:.1%}" if "share_of_peak" in fast else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\nMedians of alternating rounds. {_when(steps)}"


def _epochs(data: str) -> int:
    return RECIPES[f"clever_vits16_{data}"].epochs


def _names() -> set[str]:
    return {RECIPES[name].backbone.name for name in NETWORKS}


def _at(rows: list[dict], place: tuple) -> list[dict]:
    return [r for r in rows if (where(r), r["crops"], r["batch"]) == place]


def _predicted(recipe: Recipe, gpu: str) -> str:
    return " to ".join(map(number, predicted_rates(recipe, gpu)))


def _when(rows: list[dict]) -> str:
    last = rows[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items() if "torch" in name)
    return f"{last['date']}, commit {last['commit']}; {versions}.\n"


def _scan_key(r: dict) -> tuple:
    return r["benchmark"], r["images"], r["channels"], r["side"], r["device"]
