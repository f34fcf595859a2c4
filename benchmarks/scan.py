"""Milliseconds of the selective scan and of cross_scan, forward and backward, at every stage of VMamba-T.

On a CPU: the kernels, torch's two vectorised forms and, if asked for, the recurrence in a Python loop. On a GPU also
torch.compile of the recurrence and mamba-ssm's and VMamba's kernels where they are installed. Every form is first
compared with the kernel's output. Rounds alternate between the forms.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from clever_fast import ops
from clever_fast.benchmarks.ceilings import ceilings
from clever_fast.benchmarks.scan_forms import by_chunked_sums, published_kernels
from clever_fast.environment import conditions
from clever_fast.ops.cross_scan import reference as cross_reference
from clever_fast.ops.selective_scan import doubling, reference
from clever_fast.performance.timing import summary

STAGES = ((96, 56), (192, 28), (384, 14), (768, 7), (96, 24), (192, 12), (384, 6), (768, 3))  # channels, side
LOOPS = "python loop"


def run(*, images: int | None = None, rounds: int = 5, loops: bool = False) -> Iterator[dict]:
    """Records of both ops at every stage. loops: also the recurrence in a Python loop, which takes minutes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    images = images or (128 if device == "cuda" else 2)
    for channels, side in STAGES:
        count = images if side in (56, 28, 14, 7) else 5 * images
        for op, make, counted in (("selective_scan", scan_forms, scan_bytes), ("cross_scan", cross_forms, cross_bytes)):
            forms, tensors = make(count, channels, side, dtype, device)
            missing = {}
            if device == "cuda" and op == "selective_scan":
                others, missing = compared_on_a_gpu()
                forms |= others
            if not loops:
                forms = {name: form for name, form in forms.items() if LOOPS not in name}
            milliseconds = measure(forms, tensors, rounds, missing)
            size = {"images": count, "channels": channels, "side": side, "dtype": str(dtype).removeprefix("torch.")}
            yield {
                "benchmark": op,
                **size,
                "bytes": counted(tensors),
                "ms": {form: summary(values) for form, values in milliseconds.items()},
                "missing": missing,
                "copy_gb_s": ceilings(device, dtype)["copy_gb_s"],
                "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
                "threads": torch.get_num_threads(),
                **conditions(),
            }


def line(r: dict) -> str:
    """A record in one line."""
    first, *others = r["ms"]
    speed = r["bytes"] / r["ms"][first]["median"] / 1e6
    ms = ", ".join(f"{form} {r['ms'][form]['median']:.2f}" for form in others)
    size = f"{r['images']} x {r['channels']} x {r['side']}^2"
    share = speed / r["copy_gb_s"]
    return (
        f"{r['benchmark']:14}  {size}: {r['ms'][first]['median']:.2f} ms, {speed:.1f} GB/s, {share:.0%} of a copy; {ms}"
    )


def scan_forms(N: int, D: int, side: int, dtype: torch.dtype, device: str) -> tuple[dict[str, Callable], list[Tensor]]:
    """selective_scan on the four directions of an image, with the steps that VMamba starts from."""
    L = side * side
    u, B, C = torch.randn(N, 4 * D, L), torch.randn(N, 4, 1, L), torch.randn(N, 4, 1, L)
    delta, bias = torch.randn(N, 4 * D, L) * 0.5, torch.empty(4 * D).uniform_(-6.9, -2.3)
    tensors = [u, delta, -torch.ones(4 * D, 1), B, C, torch.ones(4 * D), bias]
    tensors = [x.to(device, dtype if i in (0, 1, 3, 4) else torch.float32) for i, x in enumerate(tensors)]
    forms = {
        "kernel": ops.selective_scan,
        "doubling": doubling.selective_scan,
        "chunked sums": by_chunked_sums,
        LOOPS: loop,
    }
    return forms, tensors


def compared_on_a_gpu() -> tuple[dict[str, Callable], dict[str, str]]:
    """What a GPU compares the scan with besides, and why others are missing."""
    torch._dynamo.reset()  # or the sizes before this one make the compiled form's shapes dynamic
    found, missing = published_kernels()
    return {"torch.compile of the doubling": torch.compile(doubling.selective_scan, dynamic=False), **found}, missing


def loop(*tensors: Tensor) -> Tensor:
    return reference.selective_scan(*tensors, delta_softplus=True)


def cross_forms(N: int, D: int, side: int, dtype: torch.dtype, device: str) -> tuple[dict[str, Callable], list[Tensor]]:
    """cross_scan, and the plain path around the scan's kernel and around the loop."""
    R = -(-D // 16)
    weights = torch.randn(4, R + 2, D) * D**-0.5, torch.randn(4, D, R) * R**-0.5
    rest = -torch.ones(4 * D, 1), torch.ones(4 * D), torch.empty(4 * D).uniform_(-6.9, -2.3)
    tensors = [torch.randn(N, side, side, D).to(device, dtype), *(w.to(device) for w in (*weights, *rest))]
    forms = {"fused": ops.cross_scan, "plain, scan kernel": cross_reference.cross_scan}
    return forms | {f"plain, {LOOPS}": lambda *xs: cross_reference.cross_scan(*xs, scan=loop)}, tensors


def scan_bytes(tensors: list[Tensor]) -> int:
    """The least that forward and backward move: inputs twice, their gradients, the float32 output and its gradient."""
    return sum(3 * x.nbytes for x in tensors) + 2 * 4 * tensors[0].numel()


def cross_bytes(tensors: list[Tensor]) -> int:
    """The same for cross_scan, whose projection goes to memory and back as well."""
    x, projection = tensors[:2]
    low = x[..., 0].numel() * projection.shape[:2].numel() * x.element_size()
    return scan_bytes(tensors) + 3 * low


def measure(
    forms: dict[str, Callable], tensors: list[Tensor], rounds: int, missing: dict[str, str]
) -> dict[str, list[float]]:
    """Milliseconds of each form in each round; a form that does not fit into memory goes to `missing` instead."""
    leaves = [x.requires_grad_() for x in tensors]
    first, *others = forms
    right = forms[first](*leaves).detach()
    dy, passes = torch.randn_like(right), {}
    for name in (first, *others):
        form = forms[name]
        try:
            y = form(*leaves).detach().float()
            error = ((y - right).norm() / right.norm()).item()
            del y
            assert error < (1e-3 if leaves[0].dtype == torch.float32 else 2e-2), f"{name} is off by {error:.2g}"
            warm = partial(forward_backward, form, leaves, dy)
            passes[name] = 1 if LOOPS in name else repeats(warm, leaves[0])
        except torch.OutOfMemoryError:
            missing[name] = "out of memory"
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, count in passes.items():
            times[name].append(clock(partial(forward_backward, forms[name], leaves, dy), leaves[0], count))
    return times


def forward_backward(form: Callable, leaves: list[Tensor], dy: Tensor) -> None:
    y = form(*leaves)
    torch.autograd.grad(y, leaves, dy.to(y.dtype))


def repeats(run: Callable, x: Tensor) -> int:
    """How many runs take at least 50 ms, after a warm-up."""
    run()
    return max(1, min(100, int(50 / clock(run, x, 1))))


def clock(run: Callable, x: Tensor, passes: int) -> float:
    """Milliseconds of one run."""
    synchronize(x)
    begin = time.perf_counter()
    for _ in range(passes):
        run()
    synchronize(x)
    return 1000 * (time.perf_counter() - begin) / passes


def synchronize(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def complete(record: dict) -> bool:
    """Whether the Python loop was timed too, as the table in docs/ has it."""
    return any(LOOPS in form for form in record["ms"])


def table(records: list[dict]) -> str:
    lines = []
    for op in ("selective_scan", "cross_scan"):
        rows = [r for r in records if r["benchmark"] == op]
        first, *others = dict.fromkeys(form for r in rows for form in r["ms"])
        lines += [f"`{op}`, forward and backward, ms, and in brackets how many times as long as the first:", ""]
        lines += [f"| images x channels x side² | {first} | GB/s | " + " | ".join(others) + " |"]
        lines += ["|---" * (3 + len(others)) + "|"]
        for r in rows:
            ms = {form: value["median"] for form, value in r["ms"].items()}
            cells = [f"{ms[form]:.2f} ({ms[form] / ms[first]:.1f})" if form in ms else "" for form in others]
            size = f"{r['images']} x {r['channels']} x {r['side']}²"
            speed = r["bytes"] / ms[first] / 1e6
            lines.append(f"| {size} | **{ms[first]:.2f}** | {speed:.1f} | " + " | ".join(cells) + " |")
        lines.append("")
    last = records[-1]
    versions = f"torch {last['versions']['torch']}"
    where = f"{last['threads']} threads of an {last['cpu']}" if last["device"] == "cpu" else last["device"]
    rounds = next(iter(last["ms"].values()))["rounds"]
    text = f"Medians of {rounds} alternating rounds, {last['dtype']}, {where}, {versions}, {last['date']}, "
    return "\n".join([*lines, f"{text}commit {last['commit']}.", ""])
