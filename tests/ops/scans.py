"""Inputs of the scans, and their results in float64, shared by the tests of the CPU kernels and of the emulator."""

from collections.abc import Callable
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from clever_fast.ops.cross_scan import reference as cross_reference
from clever_fast.ops.selective_scan import reference
from tests.compare import assert_as_close_as

LENGTHS = (1, 3, 9, 36, 49, 144, 196, 576, 784, 3136)  # edges of tiles, and VMamba's at 224 and 96 px
STATES = (1, 2, 16)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAMES = ("y", "u", "delta", "A", "B", "C", "D", "delta_bias")
CROSS_NAMES = ("y", "x", "x_proj_weight", "dt_weight", "A", "D", "delta_bias")
FLOOR = 2e-6  # of the largest value: rounding of float32 sums in another order

# H, W, D, S, R: one position, one row, one column, odd sides, more than 16 and 32 channels, VMamba's first stage
IMAGES = ((1, 1, 3, 1, 1), (1, 9, 5, 2, 3), (9, 1, 16, 1, 2), (5, 7, 19, 1, 5), (6, 6, 33, 16, 4), (12, 12, 96, 1, 6))

# every two of (length, states), (length, dtype), (states, dtype) meet; the rest is for `make test-full`
MATRIX = [
    pytest.param(L, S, DTYPES[d], marks=() if (i + j + d) % 3 == 0 else pytest.mark.full, id=f"{L}-{S}-{DTYPES[d]}")
    for (i, L), (j, S), d in product(enumerate(LENGTHS), enumerate(STATES), range(3))
]
# what the kernels on tensor cores take, in bfloat16: every way to lay out R, channels in two blocks, warps not full
TENSOR_IMAGES = (
    (5, 7, 19, 1, 6),
    (3, 3, 35, 1, 8),
    (9, 7, 40, 1, 12),
    (7, 7, 33, 1, 24),
    (2, 5, 64, 1, 48),
    (1, 3, 7, 1, 64),
)
CROSS_MATRIX = [
    pytest.param(size, DTYPES[d], marks=() if (i + d) % 3 == 0 else pytest.mark.full, id=f"{size}-{DTYPES[d]}")
    for (i, size), d in product(enumerate(IMAGES), range(3))
] + [pytest.param(size, torch.bfloat16, id=f"{size}-{torch.bfloat16}") for size in TENSOR_IMAGES]


def inputs(N: int, K: int, D: int, S: int, L: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The seven inputs. Steps reach above softplus's linear part and far below it."""
    g = torch.Generator().manual_seed(N + 10 * K + 100 * S + L)
    u, delta = (torch.randn(N, K * D, L, generator=g) for _ in range(2))
    delta = delta - 1
    delta.flatten()[:: max(7, delta.numel() // 50)] *= 25
    A = -torch.rand(K * D, S, generator=g) * 2 - 0.01
    B, C = (torch.randn(N, K, S, L, generator=g) for _ in range(2))
    weights = torch.randn(K * D, generator=g), torch.rand(K * D, generator=g) - 0.5
    return [u.to(dtype), delta.to(dtype), A, B.to(dtype), C.to(dtype), *weights]


def image_inputs(N: int, H: int, W: int, D: int, S: int, R: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    g = torch.Generator().manual_seed(N + H + W + D)
    x = torch.randn(N, H, W, D, generator=g)
    x_proj = torch.randn(4, R + 2 * S, D, generator=g) * D**-0.5
    dt = torch.randn(4, D, R, generator=g) * R**-0.5
    A = -torch.rand(4 * D, S, generator=g) * 2 - 0.01
    return [x.to(dtype), x_proj, dt, A, torch.randn(4 * D, generator=g), torch.rand(4 * D, generator=g) * 2 - 2]


def output_gradient(shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def with_gradients(op: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """The output and the gradient of each tensor, for one fixed gradient of the output."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    y = op(*leaves)
    y.backward(output_gradient(y.shape).to(y.dtype))
    return [y.detach(), *(x.grad for x in leaves)]


def recurrence(*tensors: Tensor) -> Tensor:
    return reference.selective_scan(*tensors, delta_softplus=True)


@cache
def expected(N: int, K: int, D: int, S: int, L: int, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """The recurrence's results in float64 and in the inputs' own dtypes."""
    tensors = inputs(N, K, D, S, L, dtype)
    return with_gradients(recurrence, [x.double() for x in tensors]), with_gradients(recurrence, tensors)


@cache
def expected_of_image(N: int, size: tuple[int, ...], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    tensors = image_inputs(N, *size, dtype)
    exact = with_gradients(cross_reference.cross_scan, [x.double() for x in tensors])
    return exact, with_gradients(in_own_dtype, tensors)


def in_own_dtype(*tensors: Tensor) -> Tensor:
    return cross_reference.cross_scan(*tensors, scan=lambda *xs: recurrence(*xs))


def assert_results(names, results, exact, plain, *, floor: float = FLOOR) -> None:
    for name, result, right, rough in zip(names, results, exact, plain, strict=True):
        assert result.shape == right.shape, name
        assert result.dtype == rough.dtype, name
        if right.abs().max() > 0:
            assert_as_close_as(rough, result, right, floor=floor, name=name)
        else:
            assert not result.any(), name
