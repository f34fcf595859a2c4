"""The loop itself costs next to nothing beside a model: its work is counted, as seconds depend on the machine."""

import sys

from clever_fast.benchmarks.checks.overhead import milliseconds_per_step

CALLS = 510  # of Python and C functions, in a step with its share of a report every ten steps


def calls(folder, steps: int) -> int:
    count = 0

    def hook(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    folder.mkdir()
    sys.setprofile(hook)
    try:
        milliseconds_per_step(folder, steps)
    finally:
        sys.setprofile(None)
    return count


def test_a_step_of_the_loop_without_a_model_makes_few_calls(tmp_path):
    calls(tmp_path / "first", 20)  # imports what is imported late
    found = (calls(tmp_path / "long", 120) - calls(tmp_path / "short", 60)) / 60  # start and end cancel
    assert found < 1.25 * CALLS
    assert found > 0.7 * CALLS, "the loop has become cheaper: lower CALLS"
