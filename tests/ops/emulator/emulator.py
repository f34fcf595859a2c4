"""Builds the emulated kernels and runs them on tensors."""

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from clever_fast.ops.selective_scan.fused import channel_splits, segment_length

CUDA = torch.device("cuda")
HERE = Path(__file__).parent
HEADERS = HERE.parents[2] / "csrc" / "selective_scan"
SIZES = {"scan": "N K D S L segment splits", "cross": "N H W D S R segment splits groups"}
FIELDS = {
    "scan": "u delta B C A skip bias y states dy du ddelta dA dskip dbias dB dC",
    "cross": "x low weight A skip bias y states dy dx dlow dweight dA dskip dbias",
}
CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def build(library: Path, *flags: str, headers: Path = HEADERS) -> Path:
    command = ["g++", "-std=c++20", "-O2", "-fPIC", "-shared", "-Wno-unknown-pragmas", f"-I{headers}", f"-I{HERE}"]
    subprocess.run([*command, *flags, str(HERE / "emulated.cpp"), "-o", str(library)], check=True)
    return library


def _struct(op: str) -> type[ctypes.Structure]:
    flags = [("softplus", ctypes.c_bool)] if op == "scan" else []
    fields = [(name, ctypes.c_int64) for name in SIZES[op].split()]
    fields += [*flags, ("dtype", ctypes.c_int), *((name, ctypes.c_void_p) for name in FIELDS[op].split())]
    return type(op, (ctypes.Structure,), {"_fields_": fields})


class Emulator:
    """The kernels of one build. Outputs are NaN before, inputs lie amid NaN, `seed` orders the warps."""

    def __init__(self, library: Path, after: Callable[[], object] = lambda: None):
        self.library = ctypes.CDLL(str(library))
        self.after = after  # called after each launch

    def _call(self, op: str, direction: str, sizes: dict[str, int], tensors: dict[str, Tensor], dtype, seed: int):
        function = getattr(self.library, f"{op}_{direction}")
        function.restype = ctypes.c_char_p
        pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        parameters = _struct(op)(**sizes, **pointers, dtype=CODES[dtype])
        error = function(ctypes.byref(parameters), ctypes.c_uint(seed))
        assert error is None, error
        self.after()

    def selective_scan(self, tensors, dy, *, softplus=True, seed=0) -> list[Tensor]:
        """y and the seven gradients; dy is the gradient of y."""
        u, delta, A, B, C, D, bias = map(moated, tensors)
        (N, KD, L), (_, K, S, _) = u.shape, B.shape
        segment, splits = segment_length(L, CUDA), channel_splits(KD // K, CUDA)
        sizes = {
            "N": N,
            "K": K,
            "D": KD // K,
            "S": S,
            "L": L,
            "segment": segment,
            "splits": splits,
            "softplus": softplus,
        }
        given = {"u": u, "delta": delta, "A": moated(A.t()), "B": B, "C": C, "skip": D, "bias": bias, "dy": moated(dy)}
        y, states = nan(N, KD, L), nan(N, -(-L // segment), S, KD)
        self._call("scan", "forward", sizes, given | {"y": y, "states": states}, u.dtype, seed)
        assert states.isfinite().all()
        du, ddelta = nan(N, KD, L, dtype=u.dtype), nan(N, KD, L, dtype=u.dtype)
        dA, dD, dbias, dB, dC = nan(N, S, KD), nan(N, KD), nan(N, KD), nan(splits, *B.shape), nan(splits, *B.shape)
        made = {"states": states, "du": du, "ddelta": ddelta, "dA": dA, "dskip": dD, "dbias": dbias, "dB": dB, "dC": dC}
        self._call("scan", "backward", sizes, given | made, u.dtype, seed)
        return [y, du, ddelta, dA.sum(0).t(), dB.sum(0).to(u.dtype), dC.sum(0).to(u.dtype), dD.sum(0), dbias.sum(0)]

    def cross_scan(self, x, low, weight, A, D, bias, dy, *, groups=2, seed=0) -> list[Tensor]:
        """y and the gradients of x, low (N, H, W, 4, R + 2S), weight (4, R, D), A (4, S, D), D and bias (4, D)."""
        N, H, W, channels = x.shape
        segment, splits = segment_length(H * W, CUDA), channel_splits(channels, CUDA)
        S, R = A.shape[1], weight.shape[1]
        sizes = {
            "N": N,
            "H": H,
            "W": W,
            "D": channels,
            "S": S,
            "R": R,
            "segment": segment,
            "splits": splits,
            "groups": groups,
        }
        given = {"x": x, "low": low, "weight": weight, "A": A, "skip": D, "bias": bias, "dy": dy}
        given = {name: moated(tensor) for name, tensor in given.items()}
        y, states = nan(*x.shape), nan(N, 4, -(-H * W // segment), S, channels)
        self._call("cross", "forward", sizes, given | {"y": y, "states": states}, x.dtype, seed)
        dx, dlow = nan(*x.shape), nan(splits, *low.shape)
        dweight, dA, dD, dbias = (nan(groups, *t.shape) for t in (weight, A, D, bias))
        made = {"states": states, "dx": dx, "dlow": dlow, "dweight": dweight, "dA": dA, "dskip": dD, "dbias": dbias}
        self._call("cross", "backward", sizes, given | made, x.dtype, seed)
        partial = (t.sum(0) for t in (dweight, dA, dD, dbias))
        return [y, dx.to(x.dtype), dlow.sum(0).to(low.dtype), *partial]


def nan(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return moated(torch.full(shape, torch.nan, dtype=dtype))


def moated(x: Tensor) -> Tensor:
    """A contiguous copy amid NaN, so that a read beyond it shows."""
    sea = torch.full((x.numel() + 256,), torch.nan, dtype=x.dtype)
    return sea[128:-128].view(x.shape).copy_(x)
