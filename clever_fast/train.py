"""The one loop: batches in, weights out."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from clever_fast import checkpoint, distributed, tracing
from clever_fast.acceleration import Accelerator, accelerator, settings
from clever_fast.checkpoint import Trained
from clever_fast.checkpoint.resume import resume
from clever_fast.checkpoint.writer import Writer
from clever_fast.data import PretrainingBatches, identity
from clever_fast.encoders import export
from clever_fast.evaluate import knn
from clever_fast.methods import Batch, Method, Progress
from clever_fast.monitoring import console, curves
from clever_fast.monitoring.metrics import Log
from clever_fast.monitoring.reporter import Reporter
from clever_fast.monitoring.slow_run import WARM_UP, frozen_garbage
from clever_fast.nonfinite.stop import stop_if_not_finite
from clever_fast.ops import clip_each_, selection
from clever_fast.optimization import FailureGuard, gradient_norms, make_optimizer, schedule, step_unless
from clever_fast.pipelines.manifest import Manifest, open_manifest
from clever_fast.recipe import Execution, Recipe, Run
from clever_fast.signals import stop_signals
from clever_fast.tracing import range_, ranged

DURING_TRAINING = (20,)  # the k of k-NN during pretraining


def train(recipe: Recipe, execution: Execution, run: Run) -> Method:
    """Pretrain `recipe` on `run.data` until its last epoch, resuming what the folder `run.run` holds.

    Returns:
        The method as trained until the last step, or until it was told to stop; its checkpoint is written.

    Raises:
        UserError: something the user can mend; always before the first step.
        NotFiniteError: a loss or gradient was not finite.
    """
    distributed.adopt_slurm_variables()
    manifest = open_manifest(run.data, classes=run.classes, threads=execution.threads, progress=True)
    query = open_manifest(run.data, split="val", classes=run.classes, progress=True) if run.knn_every else None
    if query:
        knn.check(manifest, query, DURING_TRAINING)
    machine = accelerator(execution)
    trained = build(recipe, machine)
    data = identity(manifest)
    start = resume(trained, recipe, run, data)
    batches = PretrainingBatches(manifest, recipe, machine, start)
    progress = Progress(start, recipe.epochs * batches.steps_per_epoch, batches.steps_per_epoch)
    guard = FailureGuard(trained.method, machine.device, overflow_is_normal=trained.scaler.is_enabled())
    model = machine.parallel(trained.method)

    title = f"{recipe.method.name} {recipe.backbone.name}"
    log = Log(run.run, title=title, start_step=start, loggers=run.loggers)
    writer = Writer(run.run, run.keep, log.say)

    def save(progress: Progress, write: Callable[[dict], None] = writer.write) -> None:
        if distributed.is_main():
            step, epoch = progress.step, progress.epoch
            write(checkpoint.state_dict(trained, recipe=recipe, data=data, step=step, epoch=epoch))

    log.say(console.header(recipe, machine, manifest, progress))
    about = {"title": title, "commit": checkpoint.commit(), "steps": progress.steps}
    log.start(progress, settings(machine) | about)
    reporter, stream = Reporter(log, recipe, trained, machine, progress.steps_per_epoch), iter(batches)
    end = min(progress.steps, run.stop_after or progress.steps)
    try:
        with stop_signals() as stop, frozen_garbage() as freeze, tracing.emitted(run.ranges):
            while progress.step < end and not stop.seen_by_all():
                tracing.at_epoch(progress.epoch)
                batch = reporter.clock.waiting(next, stream)
                reporter.meter.add(train_step(model, trained, guard, batch, progress, recipe, machine))
                progress = replace(progress, step=progress.step + 1)

                epoch_ended = progress.step % progress.steps_per_epoch == 0
                reports = progress.step % run.log_every == 0 or progress.step == end
                saves = progress.step % run.save_every == 0 if run.save_every else epoch_ended
                if progress.step == start + WARM_UP:
                    freeze()
                if reports:
                    reporter.report(progress)
                if reports or saves:
                    stop_if_not_finite(guard, batches, progress, run, execution, save)
                if query and epoch_ended and progress.epoch % run.knn_every == 0:
                    log.evaluation(progress, _knn(trained.method, manifest, query, recipe, machine))
                    reporter.clock.restart()
                if saves and progress.step < end and not stop.raised:  # told to stop: the last one follows at once
                    save(progress, writer.begin)
            stop_if_not_finite(guard, batches, progress, run, execution, save)
            save(progress)
        _finish(log, trained, batches, recipe, run, progress)
    finally:
        writer.close()
        log.close()
        batches.close()
    return trained.method


@ranged("step")
def train_step(
    model: nn.Module,
    trained: Trained,
    guard: FailureGuard,
    batch: Batch,
    progress: Progress,
    recipe: Recipe,
    machine: Accelerator,
) -> dict[str, Tensor]:
    """One update. Returns scalars by name that stay on the device; nothing here waits for the device."""
    method, optimizer, scaler = trained.method, trained.optimizer, trained.scaler
    seed_step(recipe, progress.step, distributed.rank())
    schedule(optimizer, recipe, progress)
    method.zero_grad(set_to_none=True)
    guard.remember()
    with selection.use(machine.kernels):
        with machine.autocast():
            values = model(batch, progress)
        with range_("backward"):
            scaler.scale(guard.poison(values["loss"], progress.step)).backward()
        with range_("clip"):
            scaler.unscale_(optimizer)
            gradients, norms = gradient_norms(method)
            skip = guard.check(norms, progress.step)
            if recipe.clip_grad:
                clip_each_(gradients, norms, recipe.clip_grad)
        method.before_step(progress)
        with range_("optimizer"):
            step_unless(skip, optimizer, scaler)
        with range_("ema"):
            method.after_step(progress, 1 - skip)
    return values | {"gradient_norm": norms.norm()}


def seed_step(recipe: Recipe, step: int, rank: int) -> None:
    """Drop path is a function of (seed, step, rank), so a resumed run needs no saved generator state."""
    torch.manual_seed((recipe.seed << 44 | step << 12 | rank) % 2**63)


def build(recipe: Recipe, machine: Accelerator) -> Trained:
    """The method of a recipe with its initial weights, on the device, with its optimizer."""
    torch.manual_seed(recipe.seed)
    method = machine.prepare(recipe.method.build(recipe.backbone, recipe.drop_path))
    return Trained(method.train(), make_optimizer(method, recipe, machine.optimizer), machine.scaler())


def _knn(method: Method, bank: Manifest, query: Manifest, recipe: Recipe, machine: Accelerator) -> dict[str, float]:
    parts = knn.score(method.encoder, method.parts(), bank, query, recipe.global_size, machine, DURING_TRAINING)
    return {f"knn@{k} {name}": value for name, accuracy in parts.items() for k, value in accuracy.items()}


def _finish(
    log: Log, trained: Trained, batches: PretrainingBatches, recipe: Recipe, run: Run, progress: Progress
) -> None:
    if not distributed.is_main():
        return
    for path, reason in batches.replaced.items():
        log.say(f"replaced, unreadable since it was indexed: {path} ({reason})")
    if progress.step < progress.steps:  # no time for curves: a scheduler may be counting
        log.say(f"stopped at step {progress.step} of {progress.steps}; the same command goes on from there")
        return
    curves.draw(run.run)
    path = export.write_run(run.run, trained.method, recipe, progress.step)
    log.say(f"done: {path}, {run.run / checkpoint.NEWEST}, {run.run / curves.NAME}")
