"""Bytes and launches, counted and not computed: from the loads and stores that Triton's interpreter executes, and from
the tensors that torch's kernels read and write.

    TRITON_INTERPRET=1 python -m clever_fast.benchmarks.traffic --images 128 --prototypes 65536

prints JSON: for each loss and phase, what the fused form and the reference move.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clever_fast import ops
from clever_fast.methods.distillation import update_center
from clever_fast.ops.selection import Kernels

V, G = 10, 2  # the released code's crops
TEMPERATURES = {"student_temp": 0.1, "teacher_temp": 0.04}
NO_KERNEL = ("aten.empty", "aten.detach", "aten._unsafe_view", "aten.empty_like", "aten.lift_fresh")


@dataclass
class Traffic:
    """What kernels moved. A cache may serve part of the bytes; none of them is counted twice for one load."""

    bytes: int = 0
    launches: int = 0


class TorchTraffic(TorchDispatchMode):
    """Counts the operands of every torch kernel; broadcast dimensions once."""

    def __init__(self, traffic: Traffic):
        super().__init__()
        self.traffic = traffic

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view and not str(function).startswith(NO_KERNEL):
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
            self.traffic.bytes += sum(map(_size, tensors))
            self.traffic.launches += 1
        return result


@contextmanager
def counted() -> Iterator[Traffic]:
    """Counts torch's kernels and, under TRITON_INTERPRET, every load and store of Triton's."""
    from triton.runtime import interpreter

    traffic, builder = Traffic(), interpreter.InterpreterBuilder
    load, store, run = builder.create_masked_load, builder.create_masked_store, interpreter.GridExecutor.__call__
    patch = interpreter._patch_lang_tensor

    def create_masked_load(self, pointers, mask, *rest):
        loaded = load(self, pointers, mask, *rest)
        traffic.bytes += int(mask.data.sum()) * loaded.data.itemsize
        return loaded

    def create_masked_store(self, pointers, value, mask, *rest):
        traffic.bytes += int(mask.data.sum()) * value.data.itemsize
        return store(self, pointers, value, mask, *rest)

    def call(self, *args, **kwargs):
        traffic.launches += 1
        with torch._C._DisableTorchDispatch():  # the interpreter's own copies move nothing on a GPU
            return run(self, *args, **kwargs)

    def patch_lang_tensor(tensor, scope):
        patch(tensor, scope)
        # Triton 3.6 asks numpy for the int of an array of one element, which numpy 2.4 refuses
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    builder.create_masked_load, builder.create_masked_store = create_masked_load, create_masked_store
    interpreter.GridExecutor.__call__, interpreter._patch_lang_tensor = call, patch_lang_tensor
    try:
        with TorchTraffic(traffic):
            yield traffic
    finally:
        builder.create_masked_load, builder.create_masked_store = load, store
        interpreter.GridExecutor.__call__, interpreter._patch_lang_tensor = run, patch


def fused(form: str, N: int, K: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, Traffic]:
    """One loss forward and backward and its centre's update, by the kernels."""
    from clever_fast.ops.crop_pairs import launch

    student, teacher, center = torch.rand(V, N, K).to(dtype), torch.rand(G, N, K).to(dtype), torch.zeros(K)
    numbers = *TEMPERATURES.values(), launch.FORMS[form]
    with counted() as forward:
        kept = center.clone()  # as the operator does
        _, *stats = launch.forward(student, teacher, kept, *numbers, bounded=True)
    with counted() as backward:
        launch.backward(torch.ones(()), student, teacher, kept, *stats, *numbers, out=student)
    with counted() as update:
        update_center(center, teacher, 0.9)
    return {"forward": forward, "backward": backward, "centre": update}


def reference(form: str, N: int, K: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, Traffic]:
    """The same in plain torch; on tensors without data, so of any size."""
    return _without_data(form, N, K, dtype, "reference")


def released(form: str, N: int, K: int, dtype: torch.dtype = torch.float16) -> dict[str, Traffic]:
    """The same as the released code computes it."""
    return _without_data(form, N, K, dtype, "released")


def _without_data(form: str, N: int, K: int, dtype: torch.dtype, kernels: Kernels) -> dict[str, Traffic]:
    with torch.device("meta"):
        student = torch.empty(V, N, K, dtype=dtype, requires_grad=True)
        teacher, center = torch.empty(G, N, K, dtype=dtype), torch.empty(K)
    forward, backward, update = Traffic(), Traffic(), Traffic()
    with TorchTraffic(forward), ops.selection.use(kernels):
        if form == "cross_entropy":
            loss = ops.distillation_loss(student, teacher, center, **TEMPERATURES)
        else:
            loss = ops.orthogonality_loss(student, teacher, center, similarity=form, **TEMPERATURES)
    with TorchTraffic(backward):
        loss.backward()
    with TorchTraffic(update):
        update_center(center, teacher, 0.9)
    return {"forward": forward, "backward": backward, "centre": update}


def at(count: Callable[[int], dict[str, Traffic]], N: int) -> dict[str, Traffic]:
    """A count at N images from those at 1 and 2: every program of the kernels works on one image."""
    one, two = count(1), count(2)
    return {name: Traffic(_line(one[name].bytes, two[name].bytes, N), one[name].launches) for name in one}


def _line(one: int, two: int, N: int) -> int:
    return one + (two - one) * (N - 1)


def total(phases: dict[str, Traffic]) -> Traffic:
    return Traffic(sum(t.bytes for t in phases.values()), sum(t.launches for t in phases.values()))


def floor(N: int, K: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Every logit read once forward; read once backward and the student's gradient written."""
    return (3 * V + 2 * G) * N * K * dtype.itemsize


def _size(x: Tensor) -> int:
    return math.prod(n for n, stride in zip(x.shape, x.stride(), strict=True) if stride) * x.element_size()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--prototypes", type=int, default=65536)
    options = parser.parse_args()
    N, K = options.images, options.prototypes
    counts = {
        form: {
            "fused": {name: asdict(t) for name, t in at(lambda n, form=form: fused(form, n, K), N).items()},
            "reference": {name: asdict(t) for name, t in reference(form, N, K).items()},
            "released": {name: asdict(t) for name, t in released(form, N, K).items()},
            "floor": floor(N, K),
        }
        for form in ("cross_entropy", "cosine")
    }
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
