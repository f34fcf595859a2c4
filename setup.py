"""Builds csrc/ into clever_fast/_C.so.

The library holds CPU kernels and, where nvcc is found, CUDA kernels; it uses torch's stable ABI, so one binary serves
torch 2.11 and newer. Only torch's headers and libraries are needed: torch is not imported and no GPU is asked.
Without torch or a C++ compiler the package installs all the same, and its reference operators run.

    CXX                  the C++ compiler; c++ or g++ otherwise
    CUDA_HOME            where bin/nvcc is looked for first; empty for a build without CUDA
    TORCH_CUDA_ARCH_LIST such as "9.0" or "8.0;9.0+PTX"
    MAX_JOBS             compilers that run at once
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

OLDEST_TORCH = "0x020B000000000000ULL"  # 2.11: what the stable ABI's headers may assume
ARCHITECTURES = "8.0;9.0;10.0+PTX"
CXX_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wno-psabi"]
NVCC_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", "-Xfatbin=-compress-all"]


def find_torch() -> Path | None:
    """The folder of the installed torch; pip's build isolation hides it from `import` but not from here."""
    spec = importlib.util.find_spec("torch")
    places = [Path(spec.origin).parent] if spec and spec.origin else []
    places += [Path(sysconfig.get_path(kind)) / "torch" for kind in ("platlib", "purelib")]
    return next((place for place in places if (place / "include/torch/csrc/stable/library.h").exists()), None)


def find_compiler() -> str | None:
    return next((path for name in (os.environ.get("CXX"), "c++", "g++") if name and (path := shutil.which(name))), None)


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME")
    if home is not None:
        return shutil.which("nvcc", path=f"{home}/bin") if home else None
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def architectures(nvcc: str) -> list[str]:
    """nvcc's options for the architectures asked for, or for those of the default that this nvcc knows."""
    asked = os.environ.get("TORCH_CUDA_ARCH_LIST")
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True).stdout.split()
    options = []
    for entry in (asked or ARCHITECTURES).replace(" ", ";").split(";"):
        number = entry.removesuffix("+PTX").replace(".", "")
        if asked or f"sm_{number}" in known:
            options.append(f"-gencode=arch=compute_{number},code=sm_{number}")
            if entry.endswith("+PTX"):
                options.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return options


class Build(build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"  # no Python ABI in it, so none in its name

    def build_extension(self, ext: Extension) -> None:
        begin, temporary, library = time.perf_counter(), Path(self.build_temp), Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        nvcc = find_nvcc()
        say(f"clever_fast: CUDA kernels with {nvcc}" if nvcc else "clever_fast: no nvcc, so no CUDA kernels: CPU only")
        cxx = [COMPILER, *CXX_FLAGS, f"-I{TORCH}/include", "-Icsrc", f"-DTORCH_TARGET_VERSION={OLDEST_TORCH}"]
        if nvcc:
            cxx.append("-DCLEVER_FAST_CUDA")
            cuda = [nvcc, *NVCC_FLAGS, *architectures(nvcc), "-ccbin", COMPILER]
        compilers = {".cpp": cxx} | ({".cu": cuda} if nvcc else {})
        jobs = []
        sources = sorted(map(Path, ext.sources), key=lambda path: path.suffix, reverse=True)
        for source in sources:  # .cu, the slow ones, first
            if source.suffix in compilers:
                made = temporary / source.with_suffix(f"{source.suffix}.o")
                made.parent.mkdir(parents=True, exist_ok=True)
                jobs.append([*compilers[source.suffix], "-c", str(source), "-o", str(made)])
        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
            list(pool.map(run, jobs))
        link = [nvcc, "-shared", "--cudart=static", "-ccbin", COMPILER] if nvcc else [COMPILER, "-shared"]
        # libtorch.so brings in libtorch_cuda.so where there is one; nothing of it is named, so the linker would drop it
        flag = "-Xlinker=--no-as-needed" if nvcc else "-Wl,--no-as-needed"
        run([*link, *(job[-1] for job in jobs), "-o", str(library), flag, f"-L{TORCH}/lib", "-ltorch", "-ltorch_cpu"])
        say(f"clever_fast: {library} in {time.perf_counter() - begin:.0f} s")


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


def run(command: list[str]) -> None:
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    say(f"{shlex.join(command)}\n{done.stderr}# {time.perf_counter() - begin:.1f} s")
    if done.returncode:
        raise RuntimeError(f"building clever_fast._C failed:\n{shlex.join(command)}\n{done.stdout}{done.stderr}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


TORCH, COMPILER = find_torch(), find_compiler()
if not (TORCH and COMPILER):
    missing = "a C++ compiler" if TORCH else "torch 2.11 or newer (install it first)"
    say(f"clever_fast: without {missing} no kernels are built; the slow reference operators will run")

setup(
    # clever_fast/pipelines and clever_fast/benchmarks are links to the folders beside it
    packages=find_packages(include=["clever_fast", "clever_fast.*"]),
    ext_modules=[
        Extension(
            "clever_fast._C",
            sources=sorted(str(path) for suffix in ("cpp", "cu") for path in Path("csrc").rglob(f"*.{suffix}")),
            depends=sorted(str(path) for path in Path("csrc").rglob("*.*h")),
        )
    ]
    if TORCH and COMPILER
    else [],
    cmdclass={"build_ext": Build, "bdist_wheel": Wheel},
)
