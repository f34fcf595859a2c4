"""The compile gate: what ptxas makes of every kernel and configuration for sm_80, sm_90 and sm_100."""

import ast
import os
import subprocess
import sys

import pytest

GATE = """
import json, sys
from dataclasses import replace
from clever_fast.benchmarks.checks.machine_code import Job, faults, inspect, jobs
from clever_fast.ops.crop_pairs import kernels
if sys.argv[1] == "narrow":
    job = next(job for job in jobs((90,), ("bf16",)) if job.kernel == "forward")
    job = replace(job, constants={**job.constants, "UNIT": 1})
elif sys.argv[1] == "spills":
    job = next(job for job in jobs((80,), ("bf16",)) if job.kernel == "forward")
    job = replace(job, constants={**job.constants, "BLOCK": 8192}, logits=job.logits * 8)
print("; ".join(faults(job, inspect(job))))
"""


def compiled(*arguments: str) -> subprocess.CompletedProcess:
    """Another process: kernels that this one interprets cannot be compiled in it."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "dtypes", [("bf16",), pytest.param(("fp16", "fp32"), marks=pytest.mark.full)], ids=lambda dtypes: " ".join(dtypes)
)
def test_no_spills_wide_loads_and_few_instructions(dtypes):
    done = compiled("-m", "clever_fast.benchmarks.checks.machine_code", "--check", "--dtypes", *dtypes)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.full
def test_the_ops_on_crops_do_not_spill_and_take_less_than_a_millisecond_of_an_h200():
    done = compiled("-m", "clever_fast.benchmarks.checks.crop_code", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("fault", "found"), [("narrow", "are narrow"), ("spills", "spills")])
def test_the_gate_finds(fault, found):
    done = compiled("-c", GATE, fault)
    assert found in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("capability", [90, *(pytest.param(c, marks=pytest.mark.full) for c in (80, 100))])
def test_every_launch_compiles(capability):
    done = compiled("-m", "tests.ops.compile_only", str(capability))
    assert done.returncode == 0, done.stdout + done.stderr
    crops = {"mean_luma", "colour", "blur_rows", "blur_columns", "deform"}
    assert {"forward", "combine", "backward", "clip", "lerp", *crops} == set(ast.literal_eval(done.stdout))
