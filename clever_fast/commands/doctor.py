"""`clever-fast doctor`: what is installed, whether it works, and how to mend what does not."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "fault": "[red]fault[/]"}


def doctor(*, data: Path | None = None, run: Path = Path(), classes: Path | None = None) -> int:
    """Check the machine, and a data folder if one is given. The exit code is 1 if there is a fault, else 0.

    Args:
        data: folder of class folders whose files are looked at.
        run: where a run would be written.
        classes: file with one class folder a line, for a subset.
    """
    from clever_fast.doctor import check_data, check_disk, check_machine

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
    return int(faults > 0)
