"""The loop itself costs next to nothing beside a model."""

import statistics

from clever_fast.benchmarks.checks.overhead import milliseconds_per_step


def test_a_step_of_the_loop_without_a_model_takes_little(tmp_path):
    """2 ms is the aim, on a quiet machine; docs/profiling.md has the measured number, the bound allows a busy one."""
    found = milliseconds_per_step(tmp_path, steps=200)
    assert len(found) == 19
    assert statistics.median(found) < 20
