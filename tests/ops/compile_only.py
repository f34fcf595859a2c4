"""Launches every Triton kernel with the arguments of real calls, for a GPU that is not there: compiles, runs nothing.

    python -m tests.ops.compile_only 90

What the interpreter cannot show: an integer argument of 1 is a constant to the compiler, and addresses that are not
multiples of 16 make another kernel. TRITON_INTERPRET must not be set.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from clever_fast.ops.crop_pairs import launch
from clever_fast.ops.deformation import fused as deformation
from clever_fast.ops.photometry import fused as photometry
from clever_fast.ops.tensor_lists import fused as tensor_lists

# V, G, N, K: an incomplete block; strides of 1, in units of 8 and of 1; rows that are not aligned; two tiles of crops
SIZES = [(10, 2, 2, 1032), (2, 2, 1, 8), (2, 2, 1, 1), (2, 1, 3, 3), (13, 2, 1, 40)]
MOST = (2**31 - 1, 65535, 65535)  # programs along the axes of a grid


class Driver:
    """What Triton asks of a driver before a launch."""

    def __init__(self, capability: int):
        self.get_current_target = lambda: GPUTarget("cuda", capability, 32)
        self.get_current_device = lambda: 0
        self.get_current_stream = lambda device: 0


def losses() -> None:
    for V, G, N, K in SIZES:
        student, teacher = torch.zeros(V, N, K, dtype=torch.bfloat16), torch.zeros(G, N, K, dtype=torch.bfloat16)
        center, stats = torch.zeros(K), (torch.empty(3, V, N), torch.empty(2, G, N))
        for form, bounded in (("cross_entropy", False), ("cosine", True)):
            numbers = 0.1, 0.04, launch.FORMS[form]
            launch.forward(student, teacher, center, *numbers, bounded)
            launch.backward(torch.ones(()), student, teacher, center, *stats, *numbers, student)


def lists() -> None:
    for tensors in ([torch.zeros(9000), torch.zeros(5)], [torch.zeros(9)[1:]]):
        tensor_lists.clip_each_(tensors, torch.zeros(len(tensors)), 3.0)
        tensor_lists.lerp_each_(tensors, [t.clone() for t in tensors], torch.zeros(()))


def crops() -> None:
    for V, N, S, dtype in ((8, 2, 96, torch.bfloat16), (1, 1, 1, torch.uint8), (2, 3, 33, torch.float32)):
        images = torch.zeros(N, V, S, S, 3, dtype=torch.uint8).transpose(0, 1)
        out = torch.empty(V * N, S, S, 3, dtype=dtype).permute(0, 3, 1, 2)
        photometry.photometry(images, torch.zeros(V * N, 7), out)
        for field in (None, torch.zeros(2, 64, 64)):
            deformation.deformation(images, torch.zeros(V * N, 10), field, None if field is None else torch.ones(S))


def main(capability: int) -> None:
    triton.runtime.driver.set_active(Driver(capability))
    run, compiled = JITFunction.run, []

    def compile_only(self, *arguments, grid, warmup, **options):
        assert all(0 < programs <= most for programs, most in zip(grid, MOST)), grid
        run(self, *arguments, grid=grid, warmup=True, **options)
        compiled.append(self.fn.__name__)

    JITFunction.run = compile_only
    launch.config = lambda kernel, device: launch.CONFIGS[kernel][capability]
    losses()
    lists()
    crops()
    print({name: compiled.count(name) for name in dict.fromkeys(compiled)})


if __name__ == "__main__":
    main(int(sys.argv[1]))
