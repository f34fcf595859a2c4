"""The counter of warp instructions against a kernel counted by hand, and the scans' visits against the emulator's."""

import ctypes
import shutil
import subprocess

import pytest

from clever_fast.benchmarks.instruction_count import blocks_of, count
from clever_fast.benchmarks.sass import Instruction, parse
from clever_fast.benchmarks.scan_resources import find_cuobjdump

# Each round of the inner loop has one FFMA and one LDG, each of the outer one a MUFU and a STS beside them.
KERNEL = """
extern "C" __global__ void by_hand(float* y, const float* x, int rounds, int inner) {
  __shared__ float kept[32];
  float sum = 0.f;
#pragma unroll 1
  for (int i = 0; i < rounds; ++i) {
    asm volatile("pmevent.mask 1;");
#pragma unroll 4
    for (int j = 0; j < inner; ++j) {
      asm volatile("pmevent.mask 2;");
      sum = sum * x[32 * j + threadIdx.x] + 1.f;
    }
    asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(sum));
    *(volatile float*)(kept + threadIdx.x) = sum;
  }
  y[threadIdx.x] = sum;
}
"""


@pytest.mark.skipif(not (shutil.which("nvcc") and find_cuobjdump()), reason="needs nvcc and cuobjdump")
@pytest.mark.parametrize("architecture", [80, 90])
def test_a_kernel_is_counted_as_by_hand(tmp_path, architecture):
    source, cubin = tmp_path / "by_hand.cu", tmp_path / "by_hand.cubin"
    source.write_text(KERNEL)
    subprocess.run(["nvcc", "-cubin", f"-arch=sm_{architecture}", str(source), "-o", str(cubin)], check=True)
    listing = subprocess.run([find_cuobjdump(), "-sass", cubin], capture_output=True, text=True, check=True).stdout
    warps, rounds, inner = 7, 10, 20
    found = count(parse(listing)["by_hand"], warps, {1: warps * rounds, 2: warps * rounds * inner}).instructions
    assert found["fp32"] == warps * rounds * inner  # the loop is unrolled by four, and its rest runs never
    assert found["global"] == warps * (rounds * inner + 1)
    assert found["special"] == warps * rounds
    assert found["shared"] == warps * rounds


def line(address: int, text: str) -> str:
    return f"        /*{address:04x}*/                   {text} ;"


LOOP = [
    line(0, "MOV R1, R2"),
    line(16, "PMTRIG 0x1"),
    line(32, "FFMA R1, R1, R1, R1"),
    line(48, "@P0 BRA 0x10"),
    line(64, "EXIT"),
]


def listing(lines: list[str]) -> list[Instruction]:
    return parse("\n".join(["\t\tFunction : f", *lines]))["f"]


def test_blocks_follow_the_jumps():
    blocks = blocks_of(listing(LOOP))
    assert [len(block.instructions) for block in blocks] == [1, 3, 1]
    assert [block.next for block in blocks] == [[1], [1, 2], []]


def test_a_loop_whose_rounds_nobody_knows_is_refused():
    without = [text.replace("PMTRIG 0x1", "NOP") for text in LOOP]
    with pytest.raises(ValueError, match="loop at 0x10 has no marker"):
        count(listing(without), 1, {})
    with pytest.raises(ValueError, match="place 1"):
        count(listing(LOOP), 1, {})


def test_a_warp_alone_waits_for_what_it_reads():
    """Four FFMA that need each other take 4 clocks each; those that do not, one."""
    chain = [line(16 * i, "FFMA R1, R1, R1, R1") for i in range(4)]
    free = [line(16 * i, f"FFMA R{i + 2}, R1, R1, R1") for i in range(4)]
    assert count(listing([*chain, line(64, "EXIT")]), 1, {}).alone == 1 + 3 * 4 + 1
    assert count(listing([*free, line(64, "EXIT")]), 1, {}).alone == 5


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    from tests.ops.emulator.emulator import Emulator, build

    return Emulator(build(tmp_path_factory.mktemp("visits") / "emulated.so", "-O1"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(("images", "channels", "side"), [(2, 96, 8), (3, 192, 5), (1, 384, 3)])
def test_places_are_visited_as_often_as_the_emulator_visits_them(emulator, images, channels, side):
    import torch

    from clever_fast.benchmarks.scan_counts import places
    from clever_fast.benchmarks.scan_launches import WAYS, Launch

    launches = [Launch(way, images, channels, side) for way in WAYS]
    rank, g = launches[0].rank, torch.Generator().manual_seed(0)
    shapes = {
        "x": (images, side, side, channels),
        "low": (images, side, side, 4, rank + 2),
        "weight": (4, rank, channels),
        "A": (4, 1, channels),
        "D": (4, channels),
        "bias": (4, channels),
    }
    tensors = [torch.rand(shape, generator=g) * (-1 if name == "A" else 1) for name, shape in shapes.items()]
    tensors[:2] = (t.bfloat16() for t in tensors[:2])
    asked = emulator.library.visits
    asked.restype = ctypes.c_int64
    found, numbers = [], places()
    emulator.after = lambda: found.append({name: asked(number) for name, number in numbers.items()})
    emulator.cross_scan(*tensors, tensors[0].float(), groups=launches[1].groups)
    for launch, counted in zip(launches, found, strict=True):
        assert {name: times for name, times in counted.items() if times} == {
            n: v for n, v in launch.visits.items() if v
        }
