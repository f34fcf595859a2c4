"""`clever-fast watch`: runs in the terminal."""

import time
from pathlib import Path

from clever_fast.command_line import Parser
from clever_fast.errors import UserError
from clever_fast.monitoring.watching import LOG, Records, frame


def watch(words: list[str]) -> None:
    """Draw runs side by side from what their folders hold, again and again until Ctrl-C; nothing in them is changed."""
    parser = Parser(prog="clever-fast watch", description="Follow runs in the terminal, also finished ones.")
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of runs.")
    parser.add_argument("--once", action="store_true", help="Draw once and leave.")
    parser.add_argument("--every", type=float, default=2.0, help="Seconds between looks.")
    options = parser.parse_args(words)
    if options.every <= 0:
        raise UserError(f"--every is {options.every}; give seconds above 0")
    for folder in options.runs:
        if not (folder / LOG).exists():
            raise UserError(f"{folder} holds no {LOG}: is it the --run folder of a run that has begun?")
    from rich.console import Console
    from rich.live import Live

    runs, console = [Records(folder) for folder in options.runs], Console()
    if options.once or not console.is_terminal:
        console.print(frame(runs))
        return
    try:
        with Live(frame(runs), console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(frame(runs), refresh=True)
                time.sleep(options.every)
    except KeyboardInterrupt:
        console.print(frame(runs))
