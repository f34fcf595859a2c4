"""The CUDA kernels' own source, run by a CPU emulator: against float64, under AddressSanitizer, with planted faults.

What a GPU adds to this (its exp and log, real concurrency) is tested by `-m gpu` in test_scan_gpu.py.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from clever_fast.ops import extension
from clever_fast.ops.selective_scan.fused import segment_length
from tests.ops import scans
from tests.ops.emulator.emulator import HEADERS, HERE, Emulator, build

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory) -> Emulator:
    return Emulator(build(tmp_path_factory.mktemp("emulator") / "emulated.so"))


@pytest.mark.parametrize(("L", "S", "dtype"), scans.MATRIX)
def test_selective_scan_equals_the_recurrence(emulator, L, S, dtype):
    size = (2, 2, 19) if L < 500 else (1, 1, 5)
    tensors = scans.inputs(*size, S, L, dtype)
    results = emulator.selective_scan(tensors, scans.output_gradient(tensors[0].shape), seed=L)
    scans.assert_results(scans.NAMES, results, *scans.expected(*size, S, L, dtype))


def test_softplus_and_its_slope_over_all_of_bfloat16(emulator):
    """Every finite bfloat16 from -80 on, below which both are under 2e-35; a GPU's own 2^x adds 2 ulp."""
    x = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).float()
    x = x[x.isfinite() & (x >= -80)].contiguous()
    value, slope = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, value, slope))
    emulator.library.softplus_of(*pointers, ctypes.c_int64(len(x)))
    exact = torch.clamp_min(x.double(), 0) + torch.log1p(torch.exp(-x.double().abs()))
    # exp(x) with x log2(e) rounded to float32 is off by |x| 2^-24 at most
    allowed = 1e-6 + x.double().clamp(max=0).abs() * 2**-23
    assert ((value.double() - exact).abs() <= allowed * exact).all()
    assert ((slope.double() - torch.sigmoid(x.double())).abs() <= allowed * torch.sigmoid(x.double())).all()


@pytest.mark.parametrize("D", [32, 33, 160])
def test_channels_are_split_over_blocks(emulator, D):
    tensors = scans.inputs(1, 2, D, 2, 60)
    results = emulator.selective_scan(tensors, scans.output_gradient(tensors[0].shape))
    scans.assert_results(scans.NAMES, results, *scans.expected(1, 2, D, 2, 60, torch.float32))


@pytest.mark.skipif(bool(extension.missing), reason="needs the library built from csrc")
@pytest.mark.parametrize(("size", "dtype"), scans.CROSS_MATRIX)
def test_cross_scan_equals_the_cpu_kernel(emulator, size, dtype):
    """The CPU kernel, which is tested against float64, takes the same operands."""
    x, projection, dt, A, D, bias = scans.image_inputs(3, *size, dtype)
    low = torch.nn.functional.linear(x.float(), projection.flatten(0, 1)).unflatten(-1, projection.shape[:2])
    weight, A = dt.transpose(1, 2).contiguous(), A.unflatten(0, (4, -1)).transpose(1, 2).contiguous()
    operands = [x, low.to(dtype), weight, A, D.view(4, -1), bias.view(4, -1)]
    segment = segment_length(x.shape[1] * x.shape[2], x.device)
    expected = scans.with_gradients(lambda *xs: torch.ops.clever_fast.cross_scan(*xs, segment)[0], operands)
    results = emulator.cross_scan(*operands, scans.output_gradient(x.shape), seed=size[0])
    tensor_cores = size in scans.TENSOR_IMAGES  # which split float32 into two bfloat16
    for name, result, right in zip(["y", "x", "low", "weight", "A", "D", "bias"], results, expected, strict=True):
        assert result.dtype == right.dtype
        floor = torch.finfo(right.dtype).eps if right.dtype != torch.float32 else 1e-4 if tensor_cores else 1e-5
        error = (result.double() - right.double()).abs().max() / right.double().abs().max().clamp_min(1e-30)
        assert error <= floor, name


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_warps_changes_no_bit(emulator, seed):
    tensors = scans.inputs(1, 2, 40, 2, 100)
    dy = scans.output_gradient(tensors[0].shape)
    first, second = (emulator.selective_scan(tensors, dy, seed=s) for s in (0, seed))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# ---- the same kernels beside the CPU's, under AddressSanitizer; and what must not pass


@pytest.fixture(scope="module")
def cpu_objects(tmp_path_factory) -> list[str]:
    folder, made = tmp_path_factory.mktemp("objects"), []
    for source in sorted(HEADERS.glob("cpu_*.cpp")):
        made.append(str(folder / f"{source.stem}.o"))
        flags = ["-std=c++20", "-O1", "-fsanitize=address", "-Wno-psabi"]
        subprocess.run(["g++", *flags, "-c", str(source), "-o", made[-1]], check=True)
    return made


def check(folder: Path, objects: list[str], *flags: str, headers: Path = HEADERS) -> subprocess.CompletedProcess:
    command = ["g++", "-std=c++20", "-fsanitize=address", "-Wno-unknown-pragmas", f"-I{headers}", f"-I{HERE}", *flags]
    subprocess.run([*command, str(HERE / "checked.cpp"), *objects, "-o", str(folder / "checked")], check=True)
    return subprocess.run([str(folder / "checked")], capture_output=True, text=True, timeout=300)


def test_no_fault_is_found_under_address_sanitizer(tmp_path, cpu_objects):
    done = check(tmp_path, cpu_objects, "-O1")
    assert done.returncode == 0, done.stderr


BARRIER = "  __syncthreads();\n  float h = before()"
FAULTS = {
    "missing barrier": ("device.cuh", BARRIER, "  float h = before()", "on the CPU"),
    "divergent barrier": (
        "device.cuh",
        BARRIER,
        "  if (t.warp) __syncthreads();\n  float h = before()",
        "divergent barrier",
    ),
    "weights used before they are there": (
        "cross.cuh",
        "    __syncthreads();  // before the weights are used",
        "",
        "on the CPU",
    ),
    "read past the last channel": ("scan.cuh", "c < channels && l < count", "l < count", "heap-buffer-overflow"),
    "write past the last position": (
        "scan.cuh",
        "t.lane % 4 == 0 && l < count",
        "t.lane % 4 == 0",
        "heap-buffer-overflow",
    ),
    "too little shared memory": (
        "low_rank.cuh",
        "positions * PITCH : 0",
        "(positions - 1) * PITCH : 0",
        "use-after-poison",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(tmp_path, cpu_objects, fault):
    name, text, spoiled, message = FAULTS[fault]
    headers = Path(shutil.copytree(HEADERS, tmp_path / "headers"))
    source = (headers / name).read_text()
    assert source.count(text) == 1, "the fault's place is gone: plant it anew"
    (headers / name).write_text(source.replace(text, spoiled))
    only = ["-DONLY_FLOAT32"] if fault != "weights used before they are there" else []  # tensor cores take bfloat16
    done = check(tmp_path, cpu_objects, "-O0", *only, headers=headers)
    assert done.returncode != 0
    assert message in done.stderr
