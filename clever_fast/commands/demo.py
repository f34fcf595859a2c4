"""`clever-fast demo`: the whole way from images to a score, in minutes, on any machine."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

from clever_fast.commands import demo_report
from clever_fast.commands.evaluate import Inputs, knn
from clever_fast.commands.synthesize import synthesize
from clever_fast.errors import UserError
from clever_fast.options import Execution, Run
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.pipelines.policies import BAUG, CAUG, CAUG_PLUS
from clever_fast.pipelines.preview import contact_sheet
from clever_fast.recipes import RECIPES
from clever_fast.signals import stopped_by
from clever_fast.train import train

MADE = "made_by_demo"  # a file of the run's folder, without which it is somebody's run
IMAGES = {"label": "material", "per_class": 200, "val_per_class": 100, "size": 64}


def demo(
    out: Path = Path("demo"),
    *,
    recipe: Literal["clever_demo", "clever_vmamba_demo"] = "clever_demo",
    epochs: int | None = None,
    seed: int = 0,
) -> int:
    """Synthesize images, pretrain a small CLeVER, stop and resume it on purpose, evaluate it, and write a report.

    Args:
        out: folder to write; what an earlier demo left there is replaced.
        recipe: a small ResNet, or a small VMamba.
        epochs: another length than the recipe's.
        seed: of the weights, crops and order; the images stay the same.
    """
    if epochs is not None and epochs < 1:
        raise UserError(f"--epochs {epochs} is too few: give at least 1")
    begin, chosen = time.perf_counter(), replace(RECIPES[recipe], seed=seed)
    if epochs:
        chosen = replace(chosen, epochs=epochs)
    data, run = out / "images", out / "run"
    if run.exists() and any(run.iterdir()) and not (run / MADE).exists():
        raise UserError(f"{run} was not made by a demo of this version: name another --out, or remove it yourself")
    shutil.rmtree(run, ignore_errors=True)
    try:
        run.mkdir(parents=True)
        (run / MADE).write_text("The next demo replaces this folder.\n")
    except OSError as error:
        raise UserError(f"cannot write to {run}: {error.strerror}; name another --out") from None

    _say(f"1. synthesize labelled images in {data}")
    synthesize(data, **IMAGES)
    _say("2. look at what the augmentations do")
    manifest = open_manifest(data, progress=True)
    policies = [replace(chosen, policy=policy).views for policy in (BAUG, CAUG, CAUG_PLUS)]
    contact_sheet(manifest, policies, images=3, seed=seed).save(out / "preview.png")
    _say("3. pretrain, stopping in the middle of an epoch")
    settings = Run(data=data, folder=run, knn_every=max(1, chosen.epochs // 8), save_every=10**9)
    steps = chosen.epochs * (len(manifest) // chosen.batch_size)
    train(chosen, Execution(), replace(settings, stop_after=steps // 2 + 1))
    if number := stopped_by():
        return 128 + number
    _say("4. resume: the same call goes on at the same step")
    train(chosen, Execution(), settings)
    if number := stopped_by():
        return 128 + number
    _say("5. evaluate: k-NN on the frozen features, against no training and no network")
    knn(Inputs(run=run, data=data))
    shutil.copyfile(run / "curves.png", out / "curves.png")
    scores = json.loads((run / "knn.json").read_text())
    page = demo_report.write(out, run, chosen, scores, seconds=time.perf_counter() - begin)
    print(f"\n{page}: what happened, how fast, and what to do next\n{out / 'preview.png'}, {out / 'curves.png'}")
    return 0


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)
