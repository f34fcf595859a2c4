"""The library that setup.py built: what it asks of torch, what its CUDA kernels use, and wheels of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clever_fast.benchmarks import scan_resources
from clever_fast.benchmarks.measure import DOCS
from clever_fast.ops import extension
from tests.ops.emulator.emulator import Emulator, build

ROOT = Path(__file__).parents[2]
INCLUDE = Path(torch.__file__).parent / "include" / "torch" / "csrc"
pytestmark = pytest.mark.skipif(not extension.LIBRARY.exists(), reason="needs the library built from csrc")
needs_cuda_kernels = pytest.mark.skipif(
    not extension.has_kernels("cuda") or not scan_resources.find_cuobjdump(), reason="needs a build with nvcc"
)


def undefined_symbols(library: Path) -> list[str]:
    lines = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True).stdout
    return [line.split()[-1] for line in lines.splitlines()]


def test_the_library_asks_torch_for_its_stable_abi_alone():
    stable = "".join((INCLUDE / part).read_text() for part in ("inductor/aoti_torch/c/shim.h", "stable/c/shim.h"))
    stable += (INCLUDE / "inductor/aoti_torch/generated/c_shim_aten.h").read_text()
    stable = set(re.findall(r"\b(?:aoti_torch|torch)_\w+", stable)) | {"aoti_torch_get_current_cuda_stream"}
    # what the C and C++ libraries provide has a version, or is std's own
    asked = {
        name for name in undefined_symbols(extension.LIBRARY) if not re.search(r"@|^_ZNK?[RO]?St|^__?[a-zI]", name)
    }
    torchs = {name for name in undefined_symbols(extension.LIBRARY) if "torch" in name or "c10" in name}
    assert "aoti_torch_get_data_ptr" in stable
    assert "torch_library_impl" in asked
    assert asked | torchs <= stable, f"not in torch's stable ABI: {sorted((asked | torchs) - stable)}"


def test_the_library_knows_no_python():
    assert not [name for name in undefined_symbols(extension.LIBRARY) if name.startswith(("Py", "_Py"))]


def test_nothing_but_torch_and_the_compilers_libraries_is_linked():
    text = subprocess.run(["readelf", "-d", extension.LIBRARY], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(.+?)\.so", text))
    assert {"libtorch", "libtorch_cpu"} <= needed
    assert needed <= {"libtorch", "libtorch_cpu", "libstdc++", "libm", "libgcc_s", "libc", "ld-linux-x86-64"}


@needs_cuda_kernels
def test_kernels_do_not_spill_and_two_blocks_fit_on_a_multiprocessor():
    found = scan_resources.resources()
    assert {key[0] for key in found} == set(scan_resources.KERNELS)
    architectures = len({key[2] for key in found})
    tensor = [key for key in found if key[0].endswith(scan_resources.TENSOR)]
    assert len(tensor) == 2 * 8 * architectures  # each rank
    assert len(found) - len(tensor) == 4 * 3 * architectures  # each dtype
    for key, usage in found.items():
        # a pointer or two that is needed once a segment; none in forward kernels on an A100 and an H200
        allowed = 0 if "forward" in key[0] and key[2] in ("sm_80", "sm_90") else 16
        assert usage["STACK"] + usage["LOCAL"] <= allowed, f"{key} spills: {usage}"
        assert usage["REG"] <= 128, f"{key}: {usage}"


@needs_cuda_kernels
def test_the_table_in_the_docs_is_this_builds():
    if {key[2] for key in scan_resources.resources()} != {"sm_80", "sm_90", "sm_100"}:
        pytest.skip("built for other architectures than the default")
    assert scan_resources.table() in (DOCS / "selective-scan.md").read_text()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_shared_memory_is_what_the_headers_say(tmp_path):
    library = Emulator(build(tmp_path / "sizes.so", "-O0")).library
    for backward in (False, True):
        way = "backward" if backward else "forward"
        for states, rank, warps in ((1, 6, 7), (2, 48, 5), (16, 128, 7)):
            said = scan_resources.shared_bytes(f"scan {way}", states=states, rank=rank, warps=warps)
            assert said == library.scan_shared_bytes(warps, states, backward)
            said = scan_resources.shared_bytes(f"cross {way}", states=states, rank=rank, warps=warps)
            assert said == library.cross_shared_bytes(warps, states, rank, backward, False)
            assert said <= 163 << 10  # an A100's limit for one block
        for rank, warps in ((6, 7), (24, 5), (64, 7)):
            said = scan_resources.shared_bytes(f"cross {way}", states=1, rank=rank, warps=warps, tensor=True)
            assert said == library.cross_shared_bytes(warps, 1, rank, backward, True)


SETUP = [sys.executable, "setup.py", "-q"]


def build_in(folder: Path, **environment: str) -> tuple[str, list[Path]]:
    """setup.py build in a copy of the sources: what it said, and the libraries it made."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("csrc", "clever_fast", "pipelines", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "results"))
    done = subprocess.run(
        [*SETUP, "build"], cwd=folder, capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return done.stderr, list((folder / "build").rglob("_C*.so"))


def test_without_a_compiler_the_package_builds_and_says_so(tmp_path):
    said, libraries = build_in(tmp_path, PATH=str(tmp_path), CXX="")
    assert "without a C++ compiler no kernels are built" in said
    assert not libraries


@pytest.mark.full
def test_without_nvcc_the_cpu_part_builds_and_says_so(tmp_path):
    said, libraries = build_in(tmp_path, CUDA_HOME="")
    assert "no nvcc, so no CUDA kernels: CPU only" in said
    assert len(libraries) == 1
    assert "cudaLaunchKernel" not in libraries[0].read_bytes().decode("latin1")


def test_compiled_code_may_ask_for_kernels():
    """As every VMamba on a GPU does, whole."""
    ask = torch.compile(lambda x: x + extension.has_kernels("cuda"), fullgraph=True, backend="eager")
    assert ask(torch.zeros(())) == extension.has_kernels("cuda")
