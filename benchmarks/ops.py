"""The fused ops against plain torch: milliseconds, bytes, bandwidth, memory and error.

On a GPU everything is measured, as replays of a CUDA graph on several sets of inputs, in one run with the copy
bandwidth that it is compared with. Without one, bytes and instructions are counted and the times of two GPUs are
predicted from them. The ops' tests come first, and nothing else if they fail.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from clever_fast.benchmarks.checks import machine_code
from clever_fast.benchmarks.gpu_timing import copy_bandwidth, event_ms, graph_ms
from clever_fast.benchmarks.traffic import TEMPERATURES, G, V
from clever_fast.environment import conditions
from clever_fast.errors import UserError
from clever_fast.ops.crop_pairs import crop_pairs_loss
from clever_fast.ops.distillation_loss.reference import distillation_loss as cross_entropy
from clever_fast.ops.orthogonality_loss.reference import orthogonality_loss as orthogonality

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("test_losses.py", "test_crop_pairs.py", "test_tensor_lists.py", "test_fused_training.py")
FORMS = ("cross_entropy", "cosine")
# bandwidth in B/s (A100: datasheet; H200: a large copy), multiprocessors, clock in Hz, compute capability
GPUS = {"A100": (2.0e12, 108, 1.41e9, 80), "H200": (4.3e12, 132, 1.755e9, 90)}
LANES = 128  # results of one instruction that a multiprocessor issues in a clock, over its four schedulers


def run(*, predict: bool) -> Iterator[dict]:
    """Records of the losses: measured on a GPU, and counted and predicted where `predict` asks for it."""
    refuse_if_red()
    if predict:
        yield from ({"benchmark": "ops", **record, **conditions()} for record in predicted())
    if torch.cuda.is_available():
        sizes = [128, 64, 256, 512], [65536, 16384]  # images, prototypes; the published first
        yield from ({"benchmark": "ops", **record, **conditions()} for record in measure(*sizes))


def refuse_if_red() -> None:
    tests = ROOT / "tests" / "ops"
    if not tests.exists():
        raise UserError(f"the ops' tests are not in {tests}: run this from a checkout; untested numbers mean nothing")
    print("testing the ops first")
    words = ["-m", "pytest", "-q", "--no-header", *(str(tests / name) for name in TESTS), "-m", "not full"]
    if subprocess.run([sys.executable, *words], cwd=ROOT).returncode:
        raise UserError("the ops' tests fail (see above): numbers of broken ops mean nothing")


def counted(N: int, K: int) -> dict:
    """`traffic` in a process of its own, which interprets the kernels."""
    words = ["-m", "clever_fast.benchmarks.traffic", "--images", str(N), "--prototypes", str(K)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def predicted() -> Iterator[dict]:
    """Per loss at the released size: bytes and launches counted, and the least time that the device takes for them."""
    N, K = 128, 65536
    print(f"counting bytes at N = {N}, K = {K:,}")
    counts = counted(N, K)
    for form in FORMS:
        milliseconds = {}
        for gpu, (bandwidth, processors, clock, cc) in GPUS.items():
            phases = [counts[form]["fused"]["centre"]["bytes"] / bandwidth]
            for kernel in ("forward", "backward"):
                moving = counts[form]["fused"][kernel]["bytes"] / bandwidth
                issuing = (V + G) * N * K * instructions(cc, kernel, form) / (processors * LANES * clock)
                phases.append(max(moving, issuing))
            plain = {name: moved(counts[form][name]) / bandwidth * 1e3 for name in ("reference", "released")}
            milliseconds[gpu] = {"fused": sum(phases) * 1e3, **plain}
        yield {"kind": "prediction", "form": form, "N": N, "K": K, **counts[form], "milliseconds": milliseconds}


def instructions(cc: int, kernel: str, form: str) -> float:
    """Per logit, of the form for bounded logits."""
    variant = {"forward": f"{form}, constant maximum", "backward": form}[kernel]
    jobs = machine_code.jobs((cc,), ("bf16",))
    return machine_code.inspect(next(j for j in jobs if (j.kernel, j.variant) == (kernel, variant))).instructions


def moved(phases: dict[str, dict]) -> int:
    return sum(phase["bytes"] for phase in phases.values())


def measure(images: list[int], prototypes: list[int]) -> Iterator[dict]:
    """Per loss and size, forward and backward apart: ours, plain torch, and plain torch compiled."""
    copied = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: a large copy moves {copied / 1e9:,.0f} GB/s")
    for K in prototypes:
        for N in images:
            counts = counted(N, K)
            for form in FORMS:
                torch._dynamo.reset()  # or the sizes before this one make the compiled form's shapes dynamic
                compiled = torch.compile(reference(form), dynamic=False)
                losses = {"fused": fused(form), "eager": reference(form), "compiled": compiled}
                row = {"kind": "measured", "gpu": torch.cuda.get_device_name(), "form": form, "N": N, "K": K}
                row |= {"copy_gb_s": copied / 1e9, "counts": counts[form]["fused"], "error": errors(form, losses)}
                others, row["missing"] = peers(form)
                for name, loss in (losses | others).items():
                    try:
                        row[name] = timed(loss, N, K, graph_ms if name in losses else event_ms)
                    except torch.OutOfMemoryError:
                        row["missing"][name] = "out of memory"
                print(row, flush=True)
                if "fused" in row:
                    yield row


def fused(form: str) -> Callable[..., Tensor]:
    return lambda *x: crop_pairs_loss(*x, form=form, bounded=True, inplace_backward=False, **TEMPERATURES)


def reference(form: str) -> Callable[..., Tensor]:
    if form == "cross_entropy":
        return partial(cross_entropy, **TEMPERATURES)
    return partial(orthogonality, similarity=form, **TEMPERATURES)


def peers(form: str) -> tuple[dict[str, Callable[..., Tensor]], dict[str, str]]:
    """Other fused kernels that are installed, and why others are missing: liger-kernel's divergence, pair after pair of
    probabilities.

    It is the cross-entropy less the teacher's entropy, so its gradient is the same. Its backward pass reads a value of
    the device, so no graph holds it. No peer has the cosine.
    """
    if form != "cross_entropy":
        return {}, {}
    try:
        from liger_kernel.transformers import LigerKLDIVLoss
    except ImportError as error:
        return {}, {"liger": str(error)}

    divergence = LigerKLDIVLoss(reduction="batchmean")

    def liger(student: Tensor, teacher: Tensor, center: Tensor) -> Tensor:
        log_q = (student.float() / TEMPERATURES["student_temp"]).log_softmax(-1).unbind()
        p = ((teacher.float() - center) / TEMPERATURES["teacher_temp"]).softmax(-1).unbind()
        pairs = [divergence(log_q[v], p[g]) for g in range(len(p)) for v in range(len(log_q)) if v != g]
        return torch.stack(pairs).mean()

    return {"liger": liger}, {}


def inputs(N: int, K: int, seed: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(seed)
    student, teacher = (
        torch.rand(rows, N, K, device="cuda", generator=generator).mul_(2).sub_(1).to(dtype) for rows in (V, G)
    )
    return student.requires_grad_(), teacher, torch.zeros(K, device="cuda")


def timed(loss: Callable[..., Tensor], N: int, K: int, clock: Callable[..., dict] = graph_ms) -> dict:
    """Device milliseconds (median, low, high) of forward and backward, and the peak memory beyond the inputs, MiB."""
    sets = [inputs(N, K, seed) for seed in range(max(2, 2**29 // ((V + G) * N * K * 2)))]  # beyond any cache

    def both(x):
        return torch.autograd.grad(loss(*x), x[0])

    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    both(sets[0])
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.no_grad():
        forward = clock(lambda: [loss(*x) for x in sets], len(sets))
    step = clock(lambda: [both(x) for x in sets], len(sets))
    return {"forward_ms": forward, "step_ms": step, "peak_mib": peak}


def errors(form: str, losses: dict[str, Callable[..., Tensor]]) -> dict:
    """The largest errors of value and gradient against float64, relative to the largest entry."""
    x = inputs(16, 4096, seed=99)
    exact = [y.detach().double() for y in x]
    exact[0].requires_grad_()
    value = reference(form)(*exact)
    (gradient,) = torch.autograd.grad(value, exact[0])
    found = {}
    for name, loss in losses.items():
        ours = loss(*x)
        (g,) = torch.autograd.grad(ours, x[0])
        found[name] = {
            "value": ((ours.double() - value).abs() / value.abs()).item(),
            "gradient": ((g.double() - gradient).abs().max() / gradient.abs().max()).item(),
        }
    return found


def table(records: list[dict]) -> str:
    expected_of = {r["form"]: r for r in records if r["kind"] == "prediction"}
    measured = {(r["gpu"], r["form"], r["N"], r["K"]): r for r in records if r["kind"] == "measured"}
    lines = [
        f"| loss | form | GB | of the floor | launches | {' | '.join(f'{gpu}, predicted' for gpu in GPUS)} |",
        f"|---|---|---|---|---|{'---|' * len(GPUS)}",
    ]
    for r in expected_of.values():
        for form in ("fused", "reference", "released"):
            launches = sum(phase["launches"] for phase in r[form].values())
            cells = [f"{moved(r[form]) / 1e9:.2f}", f"{moved(r[form]) / r['floor']:.2f}", str(launches)]
            cells += [f"{r['milliseconds'][gpu][form]:.2f} ms" for gpu in GPUS]
            lines.append(f"| {r['form']} | {form} | {' | '.join(cells)} |")
    lines += ["", "Counted at N = 128, K = 65,536, with the centre's update; the times are predictions."]
    if not measured:
        lines += ["", "Not measured on a GPU: `clever-fast bench ops` on one adds what it measures."]
        return "\n".join(lines) + "\n"
    lines += [
        "",
        "| GPU | loss | N | K | forward | GB/s | of a copy | both | GB/s | of a copy | predicted | times ours | MiB |",
        f"{'|---' * 13}|",
    ]
    for r in measured.values():
        ours, forward = r["fused"], r["fused"]["forward_ms"]["median"]
        rates = []
        for ms, phases in ((forward, ("forward",)), (ours["step_ms"]["median"], ("forward", "backward"))):
            rate = sum(r_["bytes"] for name, r_ in r["counts"].items() if name in phases) / ms / 1e6
            rates += [f"{ms:.3f} ms", f"{rate:,.0f}", f"{rate / r['copy_gb_s']:.0%}"]
        others = [name for name in ("eager", "compiled", "liger") if name in r]
        ratios = [f"{name} {r[name]['step_ms']['median'] / ours['step_ms']['median']:.1f}" for name in others]
        expected = [
            p["milliseconds"][gpu]["fused"] for gpu in GPUS if gpu in r["gpu"] and (p := expected_of.get(r["form"]))
        ]
        share = f"{expected[0] * r['N'] * r['K'] / (128 * 65536):.3f} ms" if expected else ""
        cells = [
            r["gpu"],
            r["form"],
            r["N"],
            f"{r['K']:,}",
            *rates,
            share,
            ", ".join(ratios),
            f"{ours['peak_mib']:.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
