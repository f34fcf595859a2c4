"""Device memory of a training step, counted without a device: what is kept between forward and backward, and the state.

    python -m clever_fast.benchmarks.checks.memory

The step runs on torch's fake tensors, which have sizes and no content, as on a GPU under bf16 autocast. Bytes are those
of every tensor that autograd keeps; attention is taken to keep its inputs, output and log-sums, as flash attention
does. Work space, fragmentation and the CUDA context are not counted; torch.compile recomputes some of what is counted.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from clever_fast.accelerator import fit_for
from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.environment import conditions
from clever_fast.methods import Batch, Progress
from clever_fast.ops import selection
from clever_fast.options import EXECUTIONS, Execution, Recipe
from clever_fast.recipes import RECIPES

RESULTS = Path(__file__).resolve().parents[1] / "results" / "memory.jsonl"
NAMES = [name for name in RECIPES if name.startswith("clever_") and name.endswith("_in100")]
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128, help="of a GPU's batch")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that a record is added to")
    options = parser.parse_args()
    counted = {
        name: {form: step_gib(RECIPES[name], execution, options.images) for form, execution in FORMS.items()}
        for name in NAMES
    }
    append(options.results, {"benchmark": "memory", "images": options.images, "gib": counted, **conditions()})
    if options.results == RESULTS:
        records = [json.loads(line) for line in RESULTS.read_text().splitlines()]
        write_section(DOCS / "speed.md", "memory", table(records[-1]))


FORMS = {"plain": EXECUTIONS["plain"], "fast": EXECUTIONS["fast"], "small_memory": EXECUTIONS["small_memory"]}


def step_gib(recipe: Recipe, execution: Execution, images: int) -> float:
    """GiB of activations, weights, teacher, gradients and AdamW's moments at the start of the backward pass."""
    with torch.device("meta"):
        method = recipe.build().train()
    fit_for(execution.kernels, execution.checkpointing, method)
    with on_a_fake_gpu(), selection.use(execution.kernels):
        method = method.to_empty(device="cuda")
        G, L = (
            torch.empty(rows * images, 3, size, size, device="cuda", dtype=torch.float16)
            for rows, size in ((2, recipe.global_size), (recipe.local_crops, recipe.local_size))
        )
        with kept_bytes(method) as kept:
            method(Batch(G, L, torch.zeros(images)), Progress(100_000, 200_000, 500))
        state = sum(t.nbytes for t in (*method.parameters(), *method.buffers()))
        state += sum(3 * p.nbytes for p in method.parameters() if p.requires_grad)  # gradient and two moments
    return (sum(kept.values()) + state) / GIB


@contextmanager
def kept_bytes(method: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd keeps for the backward pass, the method's own parameters apart."""
    own = {p.untyped_storage()._cdata for p in method.parameters()}
    kept, alive = {}, []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)  # so that no other gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


class _FlashAttention(torch.autograd.Function):
    """What flash attention keeps; torch would not choose it for fake tensors where there is no GPU."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out


def _attention(q: Tensor, k: Tensor, v: Tensor, **_options) -> Tensor:
    return _FlashAttention.apply(*(x.to(torch.bfloat16) for x in (q, k, v)))


@contextmanager
def on_a_fake_gpu() -> Iterator[None]:
    """Fake tensors on "cuda" under bf16 autocast, where there need not be a GPU."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # real parameters become fake ones
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    try:
        with (
            warnings.catch_warnings(),
            FakeTensorMode(allow_non_fake_inputs=True),
            mock.patch.object(F, "scaled_dot_product_attention", _attention),
        ):
            warnings.simplefilter("ignore")
            torch.set_autocast_enabled("cuda", True)
            torch.set_autocast_dtype("cuda", torch.bfloat16)
            yield
    finally:
        torch.set_autocast_enabled("cuda", enabled)
        torch.set_autocast_dtype("cuda", dtype)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


def table(record: dict) -> str:
    lines = ["| recipe | plain | fast | small_memory |", "|---|---|---|---|"]
    for name, gib in record["gib"].items():
        lines.append(f"| {name} | {' | '.join(f'{gib[form]:.1f}' for form in FORMS)} |")
    return "\n".join(lines) + (
        f"\n\nGiB at {record['images']} images a GPU, counted on tensors without content, not measured on a GPU; torch "
        f"{record['versions']['torch']}, {record['date']}, commit {record['commit']}.\n"
    )


if __name__ == "__main__":
    main()
