"""`clever-fast doctor`: what is installed and works, how to mend what does not, and which settings are fastest."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from clever_fast.errors import UserError

MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "fault": "[red]fault[/]"}


def doctor(
    *,
    data: Path | None = None,
    run: Path = Path(),
    classes: Path | None = None,
    tune: bool = False,
    recipe: str = "clever_vits16_in100",
    batch: int | None = None,
    save: Path = Path("execution.yaml"),
) -> int:
    """Check the machine, and a data folder if one is given. The exit code is 1 if there is a fault, else 0.

    With --tune, try the loader's settings on this machine and save the fastest, for `pretrain --config FILE`.

    Args:
        data: folder of class folders whose files are looked at.
        run: where a run would be written.
        classes: file with one class folder a line, for a subset.
        tune: needs --data; a minute or two.
        recipe: whose crops the loader makes while it is tuned.
        batch: images of a batch while it is tuned; 128 on a GPU, 16 on a CPU.
        save: the file of the fastest settings.
    """
    from clever_fast.doctor import check_data, check_disk, check_machine

    if tune and not data:
        raise UserError("--tune needs images: name a folder with --data DIR")
    findings = [*check_machine(), *check_disk(run), *(check_data(data, classes) if data else ())]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    table.add_column(overflow="fold")
    for finding in findings:
        remedy = f"\n[bold]->[/] {finding.remedy}" if finding.remedy else ""
        table.add_row(MARKS[finding.state], finding.about, f"{finding.text}{remedy}")
    Console().print(table)
    faults = sum(finding.state == "fault" for finding in findings)
    print(f"{faults} faults, {sum(finding.state == 'warning' for finding in findings)} warnings")
    if tune and not faults:
        _tune(data, classes, recipe, batch, save)
    return int(faults > 0)


def _tune(data: Path, classes: Path | None, recipe: str, batch: int | None, save: Path) -> None:
    import torch

    from clever_fast.options import Execution
    from clever_fast.performance import tuning
    from clever_fast.pipelines.manifest import open_manifest
    from clever_fast.progress import rounds_bar
    from clever_fast.recipes import find_recipe

    manifest = open_manifest(data, classes=classes)
    images = min(batch or (128 if torch.cuda.is_available() else 16), len(manifest))
    chosen, tried = {}, tuning.candidates()
    sized = replace(find_recipe(recipe), batch_size=images)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("setting", "value", "images/s of the loader alone", "slowest to fastest round", ""):
        table.add_column(column)
    with rounds_bar(tuning.ROUNDS * sum(map(len, tried.values()))) as (advance, _):
        for trials in tuning.sweep(manifest, sized, Execution(), tried, seconds=1.0, advance=advance):
            for trial in trials:
                rate, mark = trial.rate, "[green]chosen[/]" if trial.chosen else ""
                spread = f"{rate['low']:,.1f} to {rate['high']:,.1f}"
                table.add_row(trial.field, str(trial.value), f"{rate['median']:,.1f}", spread, mark)
                if trial.chosen:
                    chosen[trial.field] = trial.value
    Console().print(table)
    tuning.save(save, chosen, recipe)
    print(f"{save}: clever-fast pretrain --config {save} ... takes these settings")
