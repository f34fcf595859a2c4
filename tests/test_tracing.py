"""Ranges name what they should, cost next to nothing while off, and leave compiled graphs whole."""

import timeit
from types import SimpleNamespace

import pytest
import torch

from clever_fast import tracing
from clever_fast.accelerator import Accelerator
from clever_fast.options import Execution
from clever_fast.performance.timing import Stepper
from clever_fast.tracing import Stopwatch, emitted, listening, range_, ranged


@ranged("inner")
def inner(x):
    return x.sin()


def outer(x):
    with range_("outer"):
        return inner(x).cos()


def test_every_part_of_a_step_and_every_op_is_named(small):
    stepper = Stepper(small(), Accelerator.from_execution(Execution(device="cpu", precision="fp32", threads=1)))
    watch = Stopwatch(torch.device("cpu"))
    with listening(watch):
        stepper.lap(stepper.noise, 2)
    names = [name for name, _, _ in watch.spans]
    parts = ["data", "teacher", "student", "loss", "backward", "clip", "optimizer", "ema", "step"]
    assert [name for name in names if name in parts] == 2 * parts
    ops = {"distillation_loss", "orthogonality_loss", "norm_gap", "norm_gap backward", "clip_each_", "lerp_each_"}
    assert set(names) == ops | {*parts, "monitors"}
    spans = {name: (begin, end) for name, begin, end in watch.spans}
    for inside, around in (("norm_gap", "loss"), ("lerp_each_", "ema"), ("loss", "step")):
        assert spans[around][0] <= spans[inside][0] <= spans[inside][1] <= spans[around][1]


def test_a_stopwatch_adds_what_has_the_same_name_and_hears_nothing_afterwards(monkeypatch):
    moments = iter([0.0, 1.0, 3.0, 7.0, 20.0, 30.0])
    monkeypatch.setattr(tracing.time, "perf_counter", lambda: next(moments))
    watch = Stopwatch(torch.device("cpu"))
    with listening(watch):
        with range_("a"), range_("b"):
            pass
        with range_("b"):
            pass
    with range_("a"):
        pass
    assert watch.milliseconds() == {"b": 2000.0 + 10000.0, "a": 7000.0}


def test_on_a_gpu_the_marks_are_events_of_the_stream(monkeypatch):
    recorded = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            recorded.append(self)
            self.at = 5.0 * len(recorded)  # ms

        def elapsed_time(self, end):
            return end.at - self.at

    synchronized = []
    fake = SimpleNamespace(Event=Event, synchronize=synchronized.append)
    monkeypatch.setattr(tracing.torch, "cuda", fake)
    watch = Stopwatch(torch.device("cuda", 0))
    with listening(watch), range_("a"), range_("b"):
        pass
    assert not synchronized
    assert watch.milliseconds() == pytest.approx({"b": 5.0, "a": 15.0})
    assert synchronized == [torch.device("cuda", 0)]


def test_epochs_end_when_the_next_begins_or_nobody_listens_any_more():
    heard = []

    def listener(name):
        heard.append(name)
        return SimpleNamespaceContext(lambda: heard.append(f"/{name}"))

    class SimpleNamespaceContext:
        def __init__(self, leave):
            self.leave = leave

        def __enter__(self): ...

        def __exit__(self, *_):
            self.leave()

    tracing.at_epoch(0)
    with listening(listener):
        for epoch in (0, 0, 1):
            tracing.at_epoch(epoch)
            with range_("step"):
                pass
    step = ["step", "/step"]
    assert heard == ["epoch 0", *step, *step, "/epoch 0", "epoch 1", *step, "/epoch 1"]


def test_an_error_passes_and_closes_the_ranges():
    watch = Stopwatch(torch.device("cpu"))
    with pytest.raises(ZeroDivisionError), listening(watch), range_("a"):
        raise ZeroDivisionError
    assert range_("a") is range_("b")  # off again


def test_the_profiler_sees_them():
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found, emitted():
        outer(torch.ones(3))
    assert {"outer", "inner"} <= {row.key for row in found.key_averages()}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_code_has_one_graph_and_none_anew_when_somebody_listens(backend):
    torch._dynamo.reset()
    compiled = torch.compile(outer, backend=backend, fullgraph=True)
    x = torch.ones(3, requires_grad=True)
    compiled(x).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True), emitted():
        assert torch.equal(compiled(x), outer(x))


def test_ops_with_ranges_compile_while_somebody_listens():
    from clever_fast import ops

    torch._dynamo.reset()
    left, right = [torch.ones(3, requires_grad=True)], [torch.ones(2)]
    with emitted():
        gap, _ = torch.compile(ops.norm_gap, backend="aot_eager", fullgraph=True)(left, right)
        gap.backward()
    torch.testing.assert_close(gap.detach(), torch.tensor(1.0))
    assert torch.equal(left[0].grad, 2 * torch.ones(3))


def test_off_they_cost_next_to_nothing():
    """A step enters about twenty; the bound is generous for a busy machine."""
    calls = 20_000
    seconds = min(timeit.repeat("with range_('a'): pass", globals={"range_": range_}, number=calls, repeat=5))
    assert seconds / calls < 10e-6
