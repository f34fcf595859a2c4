"""The live panel: whole at any width, and with the newest k-NN at its end."""

import io

import pytest
from rich.console import Console
from rich.live import Live

from clever_fast.methods import Clever, Progress
from clever_fast.monitoring import console
from clever_fast.monitoring.console import Screen, header
from tests.recipes import siamese, small

VALUES = {"lr": 1e-3, "images_per_second": 120.0, "seconds_per_step": 0.1, "data_wait": 0.1, "memory_mib": 900.0}


def screen(width: int) -> Screen:
    """A panel on a terminal of this width, which is a string here."""
    made = Screen("clever resnet10_small", Clever.metrics)
    made.console = Console(file=io.StringIO(), width=width, force_terminal=True, highlight=False)
    made.live = Live(console=made.console, auto_refresh=False)
    return made


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_panel_is_whole_and_ends_with_the_newest_accuracy(width):
    shown = screen(width)
    values = VALUES | {metric.name: 1.25 for metric in shown.metrics}
    for epoch in (4, 8):
        shown.show(Progress(10 * epoch, 80, 10), values)
        shown.evaluation(Progress(10 * epoch, 80, 10), {"knn@20 all": 50.0 + epoch})
        shown.say("a line with [green]brackets[/green]")
    last = shown.live.renderable
    plain = Console(file=io.StringIO(), width=width)
    plain.print(last)
    text = plain.file.getvalue()
    assert "58.0" in text
    assert "54.0" not in text
    assert "[green]" not in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert "[green]brackets[/green]" in shown.console.file.getvalue()  # what is said is no markup
    assert "[dim]" not in shown.console.file.getvalue()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (small(epochs=3), None),
        (small(epochs=1), "only rises"),
        (siamese(epochs=2), "only rises"),
        (siamese(epochs=1), "stays 0"),
    ],
)
def test_a_run_that_is_all_warm_up_is_warned_of(recipe, said, monkeypatch):
    monkeypatch.setattr(console.distributed, "world_size", lambda: 1)
    text = header(recipe, "cpu", "data", Progress(0, 9, 3))
    assert ("warning: all of its epochs are warm-up" in text) == bool(said)
    assert said is None or said in text
