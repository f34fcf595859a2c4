"""One self-contained HTML page about a run."""

import html
import platform
from pathlib import Path
from typing import Any

import torch

from clever_fast import environment
from clever_fast.html_page import document, picture
from clever_fast.monitoring import metrics
from clever_fast.options import Recipe


def write(out: Path, run: Path, recipe: Recipe, scores: dict[str, Any], *, seconds: float) -> Path:
    """Write `out/report.html` from a run's records, its k-NN `scores` (see `evaluate knn`) and `out/preview.png`.

    Args:
        seconds: wall time of everything, shown beside the training's own.
    """
    records = [r for r in metrics.read(run / metrics.LOG) if r["kind"] == "train"]
    best, last = {row["features"]: row["accuracy"] for row in scores["rows"] if row["k"] == 20}, records[-1]
    gain = best["trained all"] - max(best["untrained all"], best["raw pixels"])
    share = best["trained all"] / 100
    noise = 200 * (share * (1 - share) / scores["queries"]) ** 0.5  # two standard deviations of the accuracy
    verdict = (
        f"it names the class of {best['trained all']:.0f} % of unseen images by their nearest neighbours, where the "
        f"same network without training reaches {best['untrained all']:.0f} % and raw pixels {best['raw pixels']:.0f} %"
        + ("" if gain > noise else f"; with {scores['queries']} images that is hardly more than chance")
        if gain > 0
        else f"it did not learn: {best['trained all']:.0f} % against {best['untrained all']:.0f} % without training"
    )
    images = recipe.batch_size * last["step"]
    local = f" and {recipe.local_crops} local ones" if recipe.local_crops else ""
    body = f"""<h1>What just happened</h1>
<p class="lead">A small network looked at {images:,} images without their labels: {verdict}.</p>
<div class="numbers">
<span><b>{images / last["seconds"]:.0f} images/s</b>in training,
{_percent(records, "data_wait")} of it waiting for data</span>
<span><b>{last["seconds"]:.0f} s</b>of training, {seconds:.0f} s in all</span>
<span><b>{best["trained all"]:.1f} %</b>k-NN, k = 20; chance is {100 / scores["classes"]:.0f} %</span></div>
<h2>What it is worth</h2>{_table(best)}
<p class="note">Weighted k-NN with k = 20: {scores["bank"]:,} labelled images vote on {scores["queries"]:,} others.
IR is the invariant representation (the first {recipe.method.separation_ratio:.0%} of the features), EF the equivariant
factors (the rest).</p>
<h2>How it went</h2>{picture(run / "curves.png", "curves of the run")}
<p class="note">The run was stopped in the middle of an epoch and resumed; on a CPU its weights are bit for bit those of
a run that never stopped.</p>
<h2>What the network saw</h2>{picture(out / "preview.png", "crops of each view")}
<p class="note">The same images under the three policies; this run used {recipe.policy.name}. Each image gives two
global crops{local}. CAUG adds rotation to BAUG, and CAUG_PLUS elastic deformation on half of the crops.</p>
<h2>Next</h2><pre>{html.escape(_next_commands())}</pre>
<p class="note">{html.escape(platform.processor() or platform.machine())}, {torch.get_num_threads()} threads,
torch {torch.__version__}, clever_fast {environment.commit()}</p>"""
    path = out / "report.html"
    path.write_text(document(f"clever_fast: {recipe.method.name}", body), encoding="utf-8", errors="backslashreplace")
    return path


def _next_commands() -> str:
    return """# 1. your own images, one folder a class (or train/ and val/ of such folders)
clever-fast preview DIR
# 2. the published recipe; on four GPUs:
#    torchrun --nproc_per_node 4 -m -- clever_fast.cli pretrain --recipe ...
clever-fast pretrain --recipe clever_vits16_in100 --data DIR --run runs/vits16
# 3. what it is worth
clever-fast evaluate knn --run runs/vits16 --data DIR
# 4. what is left of it under colour jitter, rotation and elastic deformation
clever-fast evaluate robustness --run runs/vits16 --data DIR"""


def _table(scores: dict[str, float]) -> str:
    top = max(scores.values())
    rows = []
    for name, value in scores.items():
        kind = "bar" if name.startswith("trained") else "bar grey"
        style = ' class="best"' if name == "trained all" else ""
        bar = f'<span class="{kind}" style="width:{18 * value / top:.2f}rem"></span>'
        rows.append(f"<tr{style}><td>{html.escape(name)}</td><td>{value:.1f} %</td><td class=bars>{bar}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _percent(records: list[dict[str, Any]], name: str) -> str:
    """The mean of a share over the run, each record weighted alike."""
    return f"{sum(r[name] for r in records) / len(records):.0%}"
