"""What a run shows on the console: a header, then a live table on a terminal and plain lines elsewhere."""

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clever_fast import distributed
from clever_fast.accelerator import Accelerator
from clever_fast.methods import Metric, Progress
from clever_fast.options import Recipe


def header(recipe: Recipe, accelerator: Accelerator, data: str, progress: Progress) -> str:
    """What is about to run, in a few lines."""
    world = distributed.world_size()
    crops = f"2 x {recipe.global_size} px"
    if recipe.local_crops:
        crops += f" + {recipe.local_crops} x {recipe.local_size} px"
    warmup = f" ({min(recipe.warmup_epochs, recipe.epochs)} of them warm-up)" if recipe.warmup_epochs else ""
    lines = [
        f"{recipe.method.name} {recipe.backbone.name}, {recipe.policy.name}, {crops}",
        data,
        f"effective batch {recipe.batch_size} = {recipe.batch_size // world} x {world} processes, peak learning rate "
        f"{recipe.lr:.3g} = {recipe.base_lr:.3g} x {recipe.batch_size}/256",
        f"{recipe.epochs} epochs{warmup} of {progress.steps_per_epoch} steps on {accelerator}"
        + (f", resumed at step {progress.step}" if progress.step else ""),
    ]
    if recipe.epochs <= recipe.warmup_epochs:
        still = "stays 0" if recipe.lr_per_epoch and recipe.epochs == 1 else "only rises"
        lines.append(
            f"warning: all of its epochs are warm-up, in which the learning rate {still}: give more --recipe.epochs "
            "or fewer --recipe.warmup_epochs"
        )
    return "\n".join(lines)


class Screen:
    """The main process's console."""

    def __init__(self, title: str, metrics: Sequence[Metric] = ()):
        self.title, self.knn = title, ""
        self.last: tuple[Progress, dict[str, float]] | None = None
        self.metrics = [Metric("loss"), *(metric for metric in metrics if metric.live)]
        self.console = Console(highlight=False)
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        if self.live:
            self.live.start()

    def say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=self.live is None)  # what Live has to move is counted in whole lines

    def show(self, progress: Progress, values: dict[str, float]) -> None:
        """One report of the training loop; see `Log.train` for the values."""
        self.last = progress, values
        if self.live:
            self.live.update(self._table(progress, values), refresh=True)
            return
        losses = " ".join(f"{m.name} {values[m.name]:.4f}" for m in self.metrics if m.name in values)
        self.say(
            f"epoch {progress.step / progress.steps_per_epoch:.2f} step {progress.step}/{progress.steps} "
            f"eta {_eta(progress, values)} {losses} lr {values['lr']:.2e} {values['images_per_second']:.0f} images/s "
            f"data wait {values['data_wait']:.0%} memory {values['memory_mib']:.0f} MiB"
        )

    def evaluation(self, progress: Progress, values: dict[str, float]) -> None:
        self.knn = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
        self.say(f"epoch {progress.epoch}: {self.knn}")
        if self.live and self.last:
            self.live.update(self._table(*self.last), refresh=True)

    def close(self) -> None:
        if self.live:
            self.live.stop()

    def _table(self, progress: Progress, values: dict[str, float]) -> Table:
        table = Table(title=Text(self.title), title_justify="left", show_header=False, box=None, padding=(0, 2))
        for _ in range(3):
            table.add_column(overflow="fold")  # no name is cut short in a narrow terminal
        width = max(10, min(40, self.console.width - 30))
        done = round(width * progress.step / progress.steps)
        share = f" {progress.step / progress.steps:.0%}"
        bar = Text.assemble(("━" * done, "green"), ("━" * (width - done), "dim"), share)
        table.add_row("epoch", f"{progress.step / progress.steps_per_epoch:.2f}", bar)
        table.add_row("step", f"{progress.step}", f"of {progress.steps}, {_eta(progress, values)} to go")
        for metric in self.metrics:
            if metric.name in values:
                table.add_row(metric.label or metric.name, f"{values[metric.name]:.4f}", metric.unit)
        table.add_row("lr", f"{values['lr']:.2e}", "")
        table.add_row("images/s", f"{values['images_per_second']:.0f}", f"waiting for data {values['data_wait']:.0%}")
        table.add_row("memory", f"{values['memory_mib']:.0f}", "MiB at its peak")
        if self.knn:
            table.add_row("k-NN", "", Text(self.knn))
        return table


def _eta(progress: Progress, values: dict[str, float]) -> str:
    minutes, seconds = divmod(round((progress.steps - progress.step) * values["seconds_per_step"]), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
