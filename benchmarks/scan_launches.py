"""VMamba's scans in a training step: every launch, how it is cut into blocks, what its warps visit and its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import torch

from clever_fast.benchmarks.scan_resources import shared_bytes
from clever_fast.ops.cross_scan.fused import image_groups
from clever_fast.ops.selective_scan.fused import channel_splits, segment_length

CUDA = torch.device("cuda")
BATCH, LANES, ITEMS = 128, 32, 8
NETWORKS = {  # channels of the first stage, and blocks of each
    "vmamba_tiny": (96, (2, 2, 8, 2)),
    "vmamba_small": (96, (2, 2, 20, 2)),
    "vmamba_base": (128, (2, 2, 20, 2)),
}
SIDES = {224: (56, 28, 14, 7), 96: (24, 12, 6, 3)}
CROPS = {224: 2, 96: 8}
WAYS = ("forward", "backward")


@dataclass(frozen=True)
class Gpu:
    """What a launch is held against. Clock: the highest that holds under load. Bandwidth: of a large copy."""

    name: str
    capability: int
    multiprocessors: int
    ghz: float
    tb_s: float
    shared_kib: int  # of a multiprocessor
    l2_mib: int


# Datasheets and the CUDA C++ Programming Guide's table of compute capabilities; what an H200 copies is measured.
GPUS = (Gpu("A100", 80, 108, 1.41, 2.0, 164, 40), Gpu("H200", 90, 132, 1.755, 4.3, 228, 50))


@dataclass(frozen=True)
class Launch:
    """One kernel of one block of the network over all its crops of one size."""

    way: str  # forward or backward
    images: int
    channels: int
    side: int

    @cached_property
    def rank(self) -> int:
        return ceil(self.channels / 16)

    @cached_property
    def positions(self) -> int:
        return self.side**2

    @cached_property
    def segment(self) -> int:
        return segment_length(self.positions, CUDA)

    @cached_property
    def warps(self) -> int:
        """Of one block."""
        return self.segment // ITEMS

    @cached_property
    def segments(self) -> int:
        return ceil(self.positions / self.segment)

    @cached_property
    def tiles(self) -> int:
        return ceil(self.channels / LANES)

    @cached_property
    def splits(self) -> int:
        return channel_splits(self.channels, CUDA)

    @cached_property
    def groups(self) -> int:
        return image_groups(self.images, self.channels, CUDA)

    @cached_property
    def blocks(self) -> int:
        return self.images * self.tiles if self.way == "forward" else self.groups * self.splits

    @cached_property
    def elements(self) -> int:
        """Positions of channels of directions."""
        return 4 * self.images * self.positions * self.channels

    @cached_property
    def shared(self) -> int:
        return shared_bytes(f"cross {self.way}", states=1, rank=self.rank, warps=self.warps, tensor=True)

    @cached_property
    def visits(self) -> dict[str, int]:
        """How many warps of the launch visit each place that the source marks (tests: the emulator counts the same)."""
        sweeps = self.images * self.tiles * 4  # of a block over an image in one direction
        segments = sweeps * self.segments * self.warps
        partial = sweeps * (self.segments * self.warps - self.positions // ITEMS)  # the last warps of an image
        staged = 8 * ceil(self.rank / 16)  # two ranks of 32 channels at once
        found = {"SEGMENT": segments, "STATE": segments, "PARTIAL": partial}
        found |= {"ADDED": segments * 3 // 4, "SET": segments // 4}
        if self.way == "forward":
            found |= {"DIRECTION": sweeps * self.warps, "STAGED": sweeps * staged}
        else:
            directions = self.groups * self.tiles * 4
            found |= {
                "TILE": self.groups * self.tiles * self.warps,
                "DIRECTION": directions * self.warps,
                "IMAGE": sweeps * self.warps,
                "SUMS": directions * self.warps * 3,
                "STAGED": directions * staged,
                "SUMMED": directions * 3,
                "WRITTEN": directions * self.rank,
            }
        return found

    def bytes(self, passes: int = 4) -> int:
        """Global memory read and written; x, y, dy and dx `passes` times, once where a cache holds an image meanwhile.

        What a sum adds to is read and written.
        """
        image, width = self.images * self.positions, self.rank + 2
        low, states = 2 * 4 * width * image, 4 * 4 * self.images * self.segments * self.channels
        added = image * self.channels * (4 + 8 * (passes - 1))  # y or dx
        total = low * self.tiles + states + image * self.channels * 2 * passes + added
        if self.way == "backward":
            sums = 4 * (self.rank + 3) * self.channels * 4 * self.groups
            dlow = self.splits * image * 4 * width * 4 * (1 if passes == 1 else 2 * self.tiles / self.splits - 1)
            total += image * self.channels * 4 * passes + 2 * sums + int(dlow)
        return total


def step(network: str = "vmamba_tiny") -> Iterator[tuple[Launch, int]]:
    """Every launch of a training step of 128 images of 2x224 + 8x96 px, and how often it runs.

    The student's network takes all crops, forward and backward; the teacher's takes those of 224 px, forward.
    """
    width, depths = NETWORKS[network]
    for size, sides in SIDES.items():
        for stage, (depth, side) in enumerate(zip(depths, sides, strict=True)):
            for way in WAYS:
                teacher = way == "forward" and size == 224
                yield Launch(way, BATCH * CROPS[size], width << stage, side), depth * (2 if teacher else 1)
