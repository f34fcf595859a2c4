"""Changes to lists of tensors as one Triton launch: a program for each chunk of each tensor.

The addresses travel to the device in one asynchronous copy; the host waits for nothing.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, STEPS, WARPS = 1024, 8, 4  # elements of one load of a program, loads of a chunk
CHUNK = BLOCK * STEPS


@triton.jit
def _tensor(addresses, t, ALIGNED: tl.constexpr):
    pointer = tl.load(addresses + t).to(tl.pointer_type(tl.float32))
    return tl.multiple_of(pointer, 16) if ALIGNED else pointer


@triton.jit
def clip(
    addresses, sizes, owners, places, norms, largest, ALIGNED: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr
):
    t = tl.load(owners + tl.program_id(0))
    at = tl.load(places + tl.program_id(0)).to(tl.int64) * BLOCK * STEPS
    scale = largest / (tl.load(norms + t) + 1e-6)
    if not (scale >= 1.0):  # most are not clipped, and then not even read; NaN goes on
        x = _tensor(addresses, t, ALIGNED) + at
        left = tl.load(sizes + t) - at
        k = tl.arange(0, BLOCK)
        if left >= BLOCK * STEPS:  # whole chunks without a mask, for wide loads
            for step in tl.static_range(STEPS):
                tl.store(x + step * BLOCK + k, tl.load(x + step * BLOCK + k) * scale)
        else:
            for step in range(STEPS):
                inside = step * BLOCK + k < left
                tl.store(x + step * BLOCK + k, tl.load(x + step * BLOCK + k, mask=inside) * scale, mask=inside)


@triton.jit
def lerp(
    addresses, ends, sizes, owners, places, weight, ALIGNED: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr
):
    t = tl.load(owners + tl.program_id(0))
    at = tl.load(places + tl.program_id(0)).to(tl.int64) * BLOCK * STEPS
    w = tl.load(weight)
    if w != 0.0:
        x = _tensor(addresses, t, ALIGNED) + at
        y = _tensor(ends, t, ALIGNED) + at
        left = tl.load(sizes + t) - at
        k = tl.arange(0, BLOCK)
        if left >= BLOCK * STEPS:
            for step in tl.static_range(STEPS):
                old = tl.load(x + step * BLOCK + k)
                tl.store(x + step * BLOCK + k, old + w * (tl.load(y + step * BLOCK + k) - old))
        else:
            for step in range(STEPS):
                inside = step * BLOCK + k < left
                old = tl.load(x + step * BLOCK + k, mask=inside)
                new = old + w * (tl.load(y + step * BLOCK + k, mask=inside) - old)
                tl.store(x + step * BLOCK + k, new, mask=inside)


class Chunks(NamedTuple):
    """Which part of which tensor each program works on, on the device."""

    sizes: Tensor  # (tensors,) int64 elements
    owners: Tensor  # (programs,) int32 the chunk's tensor
    places: Tensor  # (programs,) int32 its place in the tensor


def clip_each_(tensors: Sequence[Tensor], norms: Tensor, largest: float) -> None:
    _check(tensors)
    device = tensors[0].device
    chunks = _chunks(tuple(t.numel() for t in tensors), device)
    addresses, aligned = _addresses(tensors, device)
    with torch.cuda.device_of(tensors[0]):  # Triton launches on the current device
        clip[len(chunks.owners),](
            addresses, *chunks, norms, largest, ALIGNED=aligned, BLOCK=BLOCK, STEPS=STEPS, num_warps=WARPS,
        )  # fmt: skip


def lerp_each_(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: Tensor) -> None:
    _check(tensors)
    for t, end in zip(tensors, ends, strict=True):
        if (end.dtype, end.shape, end.stride()) != (t.dtype, t.shape, t.stride()):
            raise ValueError(
                f"a tensor {tuple(t.shape)} with strides {t.stride()} cannot move to an end "
                f"{tuple(end.shape)} with strides {end.stride()}, {end.dtype}; give both the same memory format"
            )
    device = tensors[0].device
    chunks = _chunks(tuple(t.numel() for t in tensors), device)
    addresses, aligned = _addresses(tensors, device)
    end_addresses, ends_aligned = _addresses(ends, device)
    with torch.cuda.device_of(tensors[0]):
        lerp[len(chunks.owners),](
            addresses, end_addresses, *chunks, weight,
            ALIGNED=aligned and ends_aligned, BLOCK=BLOCK, STEPS=STEPS, num_warps=WARPS,
        )  # fmt: skip


@lru_cache(maxsize=16)
def _chunks(sizes: tuple[int, ...], device: torch.device) -> Chunks:
    counts = torch.tensor([triton.cdiv(size, CHUNK) for size in sizes])
    owners = torch.repeat_interleave(torch.arange(len(sizes)), counts)
    places = torch.arange(len(owners)) - (counts.cumsum(0) - counts)[owners]
    return Chunks(
        torch.tensor(sizes, dtype=torch.int64).to(device),
        owners.to(device, torch.int32),
        places.to(device, torch.int32),
    )


def _addresses(tensors: Sequence[Tensor], device: torch.device) -> tuple[Tensor, bool]:
    """The tensors' addresses on the device, and whether all of them are multiples of 16 bytes."""
    found = [t.data_ptr() for t in tensors]
    addresses = torch.tensor(found, dtype=torch.int64)
    if device.type == "cuda":
        addresses = addresses.pin_memory().to(device, non_blocking=True)
    return addresses, all(address % 16 == 0 for address in found)


def _check(tensors: Sequence[Tensor]) -> None:
    for t in tensors:
        if t.dtype != torch.float32:
            raise ValueError(f"a tensor {tuple(t.shape)} is {t.dtype}; this form takes float32")
        spanned = 1 + sum((n - 1) * stride for n, stride in zip(t.shape, t.stride(), strict=True))
        if spanned != t.numel() != 0:
            raise ValueError(f"a tensor {tuple(t.shape)} with strides {t.stride()} has gaps in its memory")
