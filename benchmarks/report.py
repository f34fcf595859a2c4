"""The records as one HTML page that needs nothing else: how fast, what limits it, where the time goes."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby

from clever_fast.benchmarks import charts
from clever_fast.benchmarks.records import number, title, training
from clever_fast.html_page import document
from clever_fast.performance.flops import PEAK_TFLOPS, PUBLISHED, formula, gflop_per_image, predicted_rates, share_of
from clever_fast.performance.profiling import COLOURS
from clever_fast.recipes import NETWORKS, RECIPES

PUBLISHED_CROPS = "2x224 + 8x96"
STYLE = (
    charts.STYLE
    + """
.wide { overflow-x: auto } table { font-size: .95rem } h3 { margin: 1.6rem 0 .2rem; font-size: 1.02rem }
th, td { white-space: nowrap; font-variant-numeric: tabular-nums } td:last-child, th:last-child { text-align: left }
"""
)


def html_page(records: list[dict]) -> str:
    """The page of all records, the newest for each way of running each recipe."""
    rows = training(records)
    parts = [charts.HATCH, *_head(rows, records), *_rates(rows), *_limits(rows), *_phases(rows), *_kernels(records)]
    return document(
        "clever_fast: how fast", "\n".join([*parts, *_predictions(), *_conditions(rows, records)]), style=STYLE
    )


def where(record: dict) -> str:
    """The hardware in words."""
    return f"{record['cores']} cores of an {record['cpu']}" if record.get("device") == "cpu" else record["device"]


def _head(rows: list[dict], records: list[dict]) -> Iterator[str]:
    yield "<h1>How fast is it?</h1>"
    steps = [r for r in rows if r["benchmark"] == "step"] or rows
    places = sorted({where(r) for r in rows})
    on_gpu = any(r["device"] != "cpu" for r in rows)
    told = f"{len(steps)} rows measured on {', '.join(places)}." if rows else "No training step is in these records."
    none = (
        "" if on_gpu else " Nothing here was measured on a GPU: images are few and crops small, and what they tell is "
    )
    yield f'<p class="lead">{escape(told)}{none}{"" if on_gpu else "what limits a CPU."}</p>'
    numbers = []
    if last := next((r for r in reversed(rows) if "ceilings" in r), None):
        product, copied = last["ceilings"]["product_tflops"], last["ceilings"]["copy_gb_s"]
        numbers += [f"<span><b>{number(product)} TFLOP/s</b>a large {last['precision']} product</span>"]
        numbers += [f"<span><b>{number(copied)} GB/s</b>a large copy, read and written</span>"]
    if loader := next((r for r in reversed(rows) if r["benchmark"] == "loader"), None):
        rate = loader["images_per_second"]["median"]
        numbers += [f"<span><b>{rate:,.0f} images/s</b>the loader alone, {loader['policy']}, {loader['crops']}</span>"]
    if numbers:
        yield f'<div class="numbers">{"".join(numbers)}</div>'


def _rates(rows: list[dict]) -> Iterator[str]:
    steps = [r for r in rows if r["benchmark"] == "step"]
    if not steps:
        return
    yield "<h2>Images per second of a step</h2>"
    yield (
        '<p class="note">A whole step on a fixed batch: teacher, student, losses, backward, clip, optimizer and the '
        "teacher's average. The dark line spans the rounds.</p>"
    )
    for (place, precision, crops, batch), group in groupby(sorted(steps, key=_size), _size):
        group = list(group)
        published = crops == PUBLISHED_CROPS and group[0]["device"] != "cpu"
        yield f"<h3>{escape(place)}, {precision}, {batch} images of {crops} px</h3>"
        top = max([r["images_per_second"]["high"] for r in group] + [1.1 * PUBLISHED] * published)
        lines = []
        group = in_order(group)
        for r, name in zip(group, _labels(group)):
            rate, plain = r["images_per_second"], r["execution"] == "plain"
            shapes = charts.track() + charts.bar(0, rate["median"], top, charts.GREY if plain else charts.BLUE)
            shapes += charts.spread(rate, top) + (charts.mark(PUBLISHED, top, hint="paper") if published else "")
            lines.append((name, shapes, f"{number(rate['median'])} <small>images/s</small>"))
        yield charts.chart(lines, {f"paper's run on an A100: {PUBLISHED:.0f}": PUBLISHED} if published else None, top)
        yield from _roofline([r for r in group if "share_of_peak" in r])


def _roofline(rows: list[dict]) -> Iterator[str]:
    if not rows:
        return
    product = rows[-1]["ceilings"]["product_tflops"]
    told = (
        f"Against the peak, a large product at {number(product)} TFLOP/s; the band is what is expected of the family:"
    )
    yield f'<p class="note">{told}</p>'
    lines = []
    for r, name in zip(rows, _labels(rows)):
        good = share_of(r["backbone"])
        shapes = charts.track() + charts.bar(good.low, good.high, 1, charts.BAND) + charts.bar(0, r["share_of_peak"], 1)
        lines.append((name, shapes, f"{r['share_of_peak']:.1%} <small>{number(r['tflops'])} TFLOP/s</small>"))
    yield charts.chart(lines)


def _size(r: dict) -> tuple:
    return where(r), r["precision"], r["crops"], r["batch"]


def in_order(rows: list[dict]) -> list[dict]:
    """Records with backbones as the recipes list them, CLeVER before DINO, fast before plain."""
    networks = [RECIPES[name].backbone.name for name in NETWORKS]
    place = {name: i for i, name in enumerate(networks)}
    return sorted(rows, key=lambda r: (place.get(r["backbone"], 99), r["backbone"], r["method"], r["execution"]))


def _limits(rows: list[dict]) -> Iterator[str]:
    """The three clocks side by side."""
    clock = {(r["benchmark"], *_same(r)): r["images_per_second"]["median"] for r in rows}
    fed = in_order([r for r in rows if r["benchmark"] == "epoch"])
    if not fed:
        return
    yield "<h2>What limits it: three clocks</h2>"
    named, lines = _labels(fed), []
    for r, name in zip(fed, named):
        loader, step, both = (clock.get((which, *_same(r))) for which in ("loader", "step", "epoch"))
        rates = ["not measured" if rate is None else f"{number(rate)}" for rate in (loader, step, both)]
        lines.append([name, *rates, f"{r['data_wait']:.0%}", _verdict(step, both, r)])
    head = ("images/s", "loader alone", "step alone", "both together", "waits for data", "limited by")
    yield charts.table(head, lines)


def _same(r: dict) -> tuple:
    return r["recipe"], r["execution"], r["device"], r["cores"], r["precision"], r["crops"], r["batch"]


def _verdict(step: float | None, both: float, record: dict) -> str:
    if record["data_wait"] > 0.1:
        return "the loader"
    if step and both < 0.9 * step and record["device"] == "cpu":
        return "cores shared with the loader"
    return "the step"


def _labels(rows: list[dict]) -> list[str]:
    """What tells the rows apart."""
    same = len({r["execution"] for r in rows}) == 1
    return [title(r) if same else f"{title(r)}, {r['execution']}" for r in rows]


def _phases(rows: list[dict]) -> Iterator[str]:
    fed = {_same(r): r for r in rows if r["benchmark"] == "step" and "phases_ms" in r}
    fed |= {_same(r): r for r in rows if r["benchmark"] == "epoch" and "phases_ms" in r}
    if not fed:
        return
    yield "<h2>Where a step's time goes</h2>"
    lines, used = [], set()
    ordered = in_order(list(fed.values()))
    for r, label in zip(ordered, _labels(ordered)):
        whole, left, shapes = sum(r["phases_ms"].values()), 0.0, ""
        for name, ms in r["phases_ms"].items():
            hint = f"{name}: {ms:,.2f} ms, {ms / whole:.0%}"
            shapes += charts.bar(left, left + ms, whole, COLOURS[name], hint)
            left += ms
            used.add(name)
        lines.append((label, shapes, f"{number(whole)} ms <small>{r['batch']} images</small>"))
    yield charts.legend({name: colour for name, colour in COLOURS.items() if name in used})
    yield charts.chart(lines)
    yield '<p class="note">data is the wait for the loader; decoding and augmenting go on beside the step.</p>'


def _kernels(records: list[dict]) -> Iterator[str]:
    """The scans and losses that were timed, as a share of what a copy moves."""
    found: dict[tuple, tuple[float, float, float]] = {}  # the newest of each: GB/s, of a copy, ms
    for r in records:
        if "ms" in r and "copy_gb_s" in r:
            ms = next(iter(r["ms"].values()))["median"]
            size = f"{r['images']} x {r['channels']} x {r['side']}²"
            found[f"{r['benchmark']}, {_device(r)}", size] = r["bytes"] / ms / 1e6, r["copy_gb_s"], ms
        if r["benchmark"] == "ops" and r["kind"] == "measured":
            ms = r["fused"]["step_ms"]["median"]
            moved = sum(r["counts"][name]["bytes"] for name in ("forward", "backward"))
            found[f"{r['form']}, {r['gpu']}", f"{r['N']} x {r['K']:,}"] = moved / ms / 1e6, r["copy_gb_s"], ms
    if not found:
        return
    yield "<h2>Kernels against the bandwidth of a copy</h2>"
    yield (
        '<p class="note">Forward and backward: the least bytes they must move, over their time. A full bar moves as '
        "much as a large copy. On a CPU exponentials limit the scan, not memory.</p>"
    )
    for op in dict.fromkeys(op for op, _ in found):
        yield f"<h3>{escape(op)}</h3>"
        yield charts.chart(
            (size, charts.track() + charts.bar(0, rate, copy), f"{rate / copy:.0%} <small>{number(ms)} ms</small>")
            for (name, size), (rate, copy, ms) in found.items()
            if name == op
        )


def _device(r: dict) -> str:
    return f"{r['threads']} threads of a CPU" if r["device"] == "cpu" else r["device"]


def _predictions() -> Iterator[str]:
    yield "<h2>Predicted, not measured: GPUs</h2>"
    note = f"{formula()} For {PUBLISHED_CROPS} px; GFLOP are counted, heads and teacher included."
    yield f'<p class="note">{escape(note)}</p>'
    recipes = {name: RECIPES[name] for name in NETWORKS}
    for gpu in PEAK_TFLOPS:
        rates = {name: predicted_rates(recipe, gpu) for name, recipe in recipes.items()}
        top = 1.02 * max(high for _, high in rates.values())
        lines = []
        for name, (begin, end) in rates.items():
            shapes = charts.track() + charts.bar(begin, end, top, "url(#hatch)") + charts.mark(PUBLISHED, top)
            record = {"method": "clever", "backbone": RECIPES[name].backbone.name}
            gflop = gflop_per_image(recipes[name])
            lines.append((title(record), shapes, f"{begin:,.0f} to {end:,.0f} <small>{gflop:,.0f} GFLOP</small>"))
        yield f"<h3>{gpu}, predicted</h3>"
        yield charts.chart(lines, {f"paper, ViT-S, A100: {PUBLISHED:.0f}": PUBLISHED}, top)


def _conditions(rows: list[dict], records: list[dict]) -> Iterator[str]:
    yield "<h2>Conditions</h2>"
    last = (rows or records)[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    told = f"{last['cpu']}, {last['cores']} cores; {versions}; {last['date']}, commit {last['commit']}."
    yield f'<p class="note">{escape(told)} '
    yield "Medians of alternating rounds; warm-up and compilation before them, in a column of their own.</p>"
    head = (
        "recipe",
        "clock",
        "execution",
        "images/s",
        "low",
        "high",
        "rounds",
        "TFLOP/s",
        "warm-up s",
        "MiB",
        "J/image",
        "date",
    )
    lines = []
    for r in rows:
        rate, joules = r["images_per_second"], r.get("joules_per_image", {}).get("median")
        numbers = [f"{rate[name]:,.4g}" for name in ("median", "low", "high")]
        others = (r.get("tflops"), r.get("warm_up_s"), r.get("peak_mib"), joules)
        cells = ["" if value is None else f"{number(value)}" for value in others]
        lines.append([r["recipe"], r["benchmark"], r["execution"], *numbers, rate.get("rounds", ""), *cells, r["date"]])
    yield f"<details><summary>All {len(lines)} rows</summary>{charts.table(head, lines)}</details>"
    yield "<pre>clever-fast bench all\nclever-fast bench report</pre>"
