"""Geometry: how the kernels are cut into programs on each kind of GPU."""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from clever_fast.ops.crop_pairs import kernels

FORMS = {"cross_entropy": kernels.CROSS_ENTROPY.value, "cosine": kernels.COSINE.value, "dot": kernels.DOT.value}
UNIT = kernels.GROUP.value  # rows that start at multiples of this many elements are read 16 bytes at a time
CROPS = 12  # of the student in one launch; more would not fit the registers
# The constant maximum of the bounded form is off by at most 1 / temperature. 2^±54 is far enough from float32's ends
# for the squares of K = 2^17 terms; a lower temperature takes the running maximum.
LARGEST_EXPONENT = 54.0


@dataclass(frozen=True)
class Config:
    """How one kernel runs: prototypes of a program's block, its warps, and (forward) programs for each image."""

    block: int
    warps: int
    splits: int = 1


CONFIGS: dict[str, dict[int, Config]] = {  # by kernel and compute capability; unlisted ones take the next lower
    "forward": {80: Config(1024, 4, 4), 90: Config(1024, 4, 8), 100: Config(1024, 4, 8)},
    "backward": {80: Config(1024, 4), 90: Config(1024, 4), 100: Config(1024, 4)},
}


def config(kernel: str, device: torch.device) -> Config:
    if device.type != "cuda":
        return CONFIGS[kernel][90]  # the interpreter
    major, minor = torch.cuda.get_device_capability(device)
    known = CONFIGS[kernel]
    return known[max((c for c in known if c <= 10 * major + minor), default=min(known))]


def is_bounded(student_temp: float, teacher_temp: float) -> bool:
    """Whether logits within [-1, 1] can do without a running maximum at these temperatures."""
    return log2_scale(min(student_temp, teacher_temp)) <= LARGEST_EXPONENT


def log2_scale(temperature: float) -> float:
    """What turns logits into exponents of two."""
    return 1.0 / (temperature * kernels.LN2.value)


def crop_tiles(V: int) -> list[tuple[int, int]]:
    """(first crop, crops) of each launch."""
    tiles = triton.cdiv(V, CROPS)
    size = triton.cdiv(V, tiles)
    return [(v, min(size, V - v)) for v in range(0, V, size)]


def rows_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def unit(*tensors: Tensor) -> int:
    """UNIT if every row of (rows, N, K) tensors starts 16-byte aligned, else 1."""
    wide = all(
        x.data_ptr() % 16 == 0 and x.stride(0) % UNIT == 0 and x.stride(1) % UNIT == 0 and x.shape[-1] % UNIT == 0
        for x in tensors
    )
    return UNIT if wide else 1


def forward(
    student: Tensor, teacher: Tensor, center: Tensor, student_temp: float, teacher_temp: float, form: int, bounded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """loss (), student_stats (3, V, N), teacher_stats (2, G, N), see `kernels.combine`; all float32."""
    (V, N, K), G = student.shape, len(teacher)
    new = {"dtype": torch.float32, "device": student.device}
    student_stats, teacher_stats = torch.empty(3, V, N, **new), torch.empty(2, G, N, **new)
    tiles = crop_tiles(V)
    loss = torch.empty(len(tiles), N, **new)
    scale = 1.0 / ((G * V - G) * N) if N else float("nan")
    if N:
        student, teacher = rows_contiguous(student), rows_contiguous(teacher)
        bounded = bounded and is_bounded(student_temp, teacher_temp)
        lowest = center.amin() if bounded else center
        shape = config("forward", student.device)
        blocks = triton.cdiv(K, shape.block)
        chunk = triton.cdiv(blocks, shape.splits) * shape.block
        splits = triton.cdiv(K, chunk)
        u = unit(student, teacher)
        strides = [x // u for x in (student.stride(1), student.stride(0), teacher.stride(1), teacher.stride(0))]
        scales = log2_scale(student_temp), log2_scale(teacher_temp)
        for tile, (first, crops) in enumerate(tiles):
            parts = torch.empty(N, splits, 2 * G + 2 * crops + crops * G, **new)
            kernels.forward[N, splits](
                student, teacher, center, lowest, parts, K // u, chunk, splits, *strides, *scales,
                V0=first, V=crops, G=G, FORM=form, BOUNDED=bounded, UNIT=u, BLOCK=shape.block, num_warps=shape.warps,
            )  # fmt: skip
            kernels.combine[N,](
                parts, lowest, student_stats, teacher_stats, loss[tile], N, V, splits, scales[1],
                V0=first, V=crops, G=G, FORM=form, BOUNDED=bounded, SPLITS=triton.next_power_of_2(splits), num_warps=1,
            )  # fmt: skip
    return loss.sum() * scale, student_stats, teacher_stats


def backward(
    grad: Tensor, student: Tensor, teacher: Tensor, center: Tensor, student_stats: Tensor, teacher_stats: Tensor,
    student_temp: float, teacher_temp: float, form: int, out: Tensor,
) -> None:  # fmt: skip
    """Writes the gradient of `student` to `out`, which may be `student` itself."""
    (V, N, K), G = student.shape, len(teacher)
    if not N:
        return
    student, teacher = rows_contiguous(student), rows_contiguous(teacher)
    shape = config("backward", student.device)
    u = unit(student, teacher, out)
    strides = [x.stride(d) // u for x in (student, teacher, out) for d in (1, 0)]
    for first, crops in crop_tiles(V):
        kernels.backward[triton.cdiv(K, shape.block), N](
            grad, student, teacher, center, student_stats, teacher_stats, out, N, K // u, V, *strides,
            log2_scale(student_temp), log2_scale(teacher_temp), 1.0 / ((G * V - G) * N * student_temp),
            V0=first, V=crops, G=G, FORM=form, UNIT=u, BLOCK=shape.block, MASKED=K % shape.block != 0,
            num_warps=shape.warps,
        )  # fmt: skip
