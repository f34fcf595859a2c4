"""The one loop: batches in, weights out."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clever_fast import checkpoint, distributed, environment, tracing
from clever_fast.accelerator import Accelerator, settings
from clever_fast.checkpoint.lock import locked
from clever_fast.checkpoint.resume import resume
from clever_fast.checkpoint.writer import Writer
from clever_fast.data import Batches, PretrainingBatches, identity
from clever_fast.encoders import export
from clever_fast.errors import UserError
from clever_fast.evaluate import knn
from clever_fast.import_paths import import_path
from clever_fast.methods import Method, Progress
from clever_fast.monitoring import console, curves
from clever_fast.monitoring.metrics import Log
from clever_fast.monitoring.reporter import Reporter
from clever_fast.monitoring.slow_run import WARM_UP, frozen_garbage
from clever_fast.nonfinite.stop import stop_if_not_finite
from clever_fast.options import Execution, Recipe, Run
from clever_fast.pipelines.listing import find_split, refuse_inside
from clever_fast.pipelines.manifest import Manifest, open_manifest
from clever_fast.signals import stop_signals
from clever_fast.train_state import TrainState

DURING_TRAINING = (20,)  # the k of k-NN during pretraining


def train(recipe: Recipe, execution: Execution, run: Run, batches: Callable[[int], Batches] | None = None) -> Method:
    """Pretrain `recipe` until its last epoch, resuming what the folder `run.folder` holds.

    Args:
        recipe: what is learned.
        execution: speed and memory options; results change only by rounding.
        run: the folders that are read and written, and how often the run reports.
        batches: a loader in place of the one that reads `run.data`, called with the step to begin at.

    Returns:
        The method as trained until the last step, or until it was told to stop; its checkpoint is written.

    Raises:
        UserError: something that the user can change; always before the first step.
        NotFiniteError: a loss or gradient was not finite.
    """
    distributed.adopt_slurm_variables()
    _refuse_few(recipe, distributed.world_size())
    if isinstance(run.data, Path) and run.data.is_dir():
        refuse_inside(run.folder, find_split(run.data, "train"), "--run")
    with locked(run.folder):
        return _train(recipe, execution, run, batches)


def _train(recipe: Recipe, execution: Execution, run: Run, batches: Callable[[int], Batches] | None) -> Method:
    manifest, query = _images(run, execution, own_loader=batches is not None)
    accelerator = Accelerator.from_execution(execution)
    state = TrainState(recipe, accelerator)
    data = identity(manifest) if manifest is not None else {"loader": import_path(batches)}
    saved = resume(run, recipe, data, state.checkpoint_bytes())
    if saved:
        state.load_state_dict(saved)
    start = saved["step"] if saved else 0
    loader = batches(start) if batches else _loader(manifest, state, start)
    progress = Progress(start, recipe.epochs * loader.steps_per_epoch, loader.steps_per_epoch)

    title = f"{recipe.method.name} {recipe.backbone.name}"
    log = Log(run.folder, title=title, start_step=start, metrics=recipe.method.metrics, loggers=run.loggers)
    writer = Writer(run.folder, run.keep, log.say)

    def save(progress: Progress, write: Callable[[dict[str, Any]], None] = writer.write) -> None:
        if distributed.is_main():
            step, epoch = progress.step, progress.epoch
            write(checkpoint.content(state.state_dict(), recipe=recipe, data=data, step=step, epoch=epoch))

    log.say(console.header(recipe, accelerator, loader.summary(), progress))
    about = {"title": title, "commit": environment.commit(), "steps": progress.steps}
    about["metrics"] = [asdict(metric) for metric in recipe.method.metrics]
    log.start(progress, settings(accelerator) | about)
    reporter, stream = Reporter(log, state, progress.steps_per_epoch), iter(loader)
    end = min(progress.steps, run.stop_after or progress.steps)
    try:
        with stop_signals() as stop, frozen_garbage() as freeze, tracing.emitted(run.ranges):
            while progress.step < end and not stop.seen_by_all():
                tracing.at_epoch(progress.epoch)
                batch = reporter.clock.waiting(next, stream)
                reporter.meter.add(state.step(batch, progress))
                progress = replace(progress, step=progress.step + 1)

                epoch_ended = progress.step % progress.steps_per_epoch == 0
                reports = progress.step % run.log_every == 0 or progress.step == end
                saves = progress.step % run.save_every == 0 if run.save_every else epoch_ended
                if progress.step == start + WARM_UP:
                    freeze()
                if reports:
                    reporter.report(progress)
                if reports or saves:
                    stop_if_not_finite(state.guard, loader, progress, run, execution, save)
                if manifest and query and epoch_ended and progress.epoch % run.knn_every == 0:
                    log.evaluation(progress, _knn(state, manifest, query))
                    reporter.clock.restart()
                if saves and progress.step < end and not stop.raised:  # told to stop: the last one follows at once
                    save(progress, writer.begin)
            stop_if_not_finite(state.guard, loader, progress, run, execution, save)
            save(progress)
        _finish(log, state, loader, run, progress)
    finally:
        writer.close()
        log.close()
        loader.close()
    return state.method


def _refuse_few(recipe: Recipe, world_size: int) -> None:
    """Raise UserError where a process has fewer images than the method's BatchNorm needs."""
    own, least = recipe.batch_size // world_size, getattr(recipe.method, "least_images", 1)
    if own < least:
        raise UserError(
            f"recipe.batch_size {recipe.batch_size} leaves {own} image(s) to each of {world_size} processes, and "
            f"{recipe.method.name} needs {least}: give {least * world_size} or more"
        )


def _images(run: Run, execution: Execution, *, own_loader: bool) -> tuple[Manifest | None, Manifest | None]:
    """The images to train on and those that k-NN tells the classes of, as far as the run needs them."""
    if own_loader == (run.data is not None):
        raise UserError("give either the images of a run (Run.data, --data) or a loader of your own (batches=)")
    if run.data is None:
        if run.knn_every:
            raise UserError(f"knn_every is {run.knn_every} and k-NN needs Run.data, which your own loader replaces")
        return None, None
    manifest = open_manifest(run.data, classes=run.classes, threads=execution.threads, progress=True)
    query = open_manifest(run.data, split="val", classes=run.classes, progress=True) if run.knn_every else None
    if query:
        knn.check(manifest, query, DURING_TRAINING)
    return manifest, query


def _loader(manifest: Manifest | None, state: TrainState, start: int) -> PretrainingBatches:
    assert manifest is not None
    return PretrainingBatches(manifest, state.recipe, state.accelerator, start)


def _knn(state: TrainState, bank: Manifest, query: Manifest) -> dict[str, float]:
    method, size, accelerator = state.method, state.recipe.global_size, state.accelerator
    parts = knn.score(method.encoder, method.parts(), bank, query, size, accelerator, DURING_TRAINING)
    return {f"knn@{k} {name}": value for name, accuracy in parts.items() for k, value in accuracy.items()}


def _finish(log: Log, state: TrainState, batches: Batches, run: Run, progress: Progress) -> None:
    if not distributed.is_main():
        return
    for image, reason in batches.replaced.items():
        log.say(f"replaced, unreadable since it was indexed: {image} ({reason})")
    if progress.step < progress.steps:  # no time for curves: a scheduler may be counting
        log.say(f"stopped at step {progress.step} of {progress.steps}; run the same command to resume")
        return
    curves.draw(run.folder)
    path = export.write_run(run.folder, state.method, state.recipe, progress.step)
    log.say(f"done: {path}, {run.folder / checkpoint.NEWEST}, {run.folder / curves.NAME}")
