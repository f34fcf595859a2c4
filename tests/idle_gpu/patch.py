"""Build `runtime.c` and point the CUDA runtimes of DALI and nvimgcodec at it, in this process."""

import ctypes
import os
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("runtime.c")
NAMES = ("libcuda.so.1", "libnvidia-ml.so.1")
KEPT = ("cudaGetErrorName", "cudaGetErrorString", "cudaCreateChannelDesc")  # which ask no driver
JUMP = (b"\x49\xbb", b"\x41\xff\xe3")  # movabs r11, ADDRESS; jmp r11


def build(folder: Path) -> dict[str, str]:
    """Compiles into `folder`; returns the environment of a process that finds a GPU there."""
    library = folder / NAMES[0]
    subprocess.run(["cc", "-w", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
    for name in NAMES[1:]:
        (folder / name).symlink_to(library)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "DALI_USE_VMM": "0"}


def install() -> ctypes.CDLL:
    """To be called before a pipeline is built; returns the stand-in."""
    import nvidia.dali.backend_impl

    for pattern in ("libnvimgcodec.so*", "extensions/*.so*"):  # else DALI loads them too late
        for library in (Path(nvidia.dali.__file__).parents[1] / "nvimgcodec").glob(pattern):
            ctypes.CDLL(library)
    stand_in = ctypes.CDLL("libcuda.so.1")
    for path, base in loaded().items():
        redirect(path, base, stand_in)
    return stand_in


def loaded() -> dict[str, int]:
    """Where DALI's and nvimgcodec's libraries are mapped."""
    rows = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    libraries = [row for row in rows if len(row) == 6 and int(row[2], 16) == 0 and ".so" in row[5]]
    found = {row[5]: int(row[0].split("-")[0], 16) for row in reversed(libraries)}
    return {path: base for path, base in found.items() if "/nvidia/dali/" in path or "/nvimgcodec/" in path}


def runtime_functions(path: str) -> dict[str, int]:
    """The CUDA runtime's functions within a library, and their offsets."""
    symbols = [
        line.split() for line in subprocess.run(["nm", path], capture_output=True, text=True).stdout.splitlines()
    ]
    wanted = ("__cudaPush", "__cudaPop", "__cudaLaunch")
    return {
        name: int(offset, 16)
        for offset, kind, name in (row for row in symbols if len(row) == 3)
        if kind in "tT"
        and (name.startswith(wanted) or (name.startswith("cuda") and name[4:5].isupper()))
        and name not in KEPT
    }


def redirect(path: str, base: int, stand_in: ctypes.CDLL) -> None:
    protect = ctypes.CDLL(None).mprotect
    for name, offset in runtime_functions(path).items():
        name = name.removesuffix("_ptsz").removesuffix("_ptds")
        target = getattr(stand_in, f"rt_{name}", None) or stand_in.done
        jump = struct.pack("<Q", ctypes.cast(target, ctypes.c_void_p).value).join(JUMP)
        page = (base + offset) & ~4095
        assert protect(ctypes.c_void_p(page), ctypes.c_size_t(8192), 7) == 0
        ctypes.memmove(base + offset, jump, len(jump))
