"""Every kernel, CUDA's and Triton's, in compute-sanitizer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import torch
from clever_fast import ops
from clever_fast.ops.crop_pairs import crop_pairs_loss
from tests.ops import scans

for op, tensors in (
    (ops.selective_scan, scans.inputs(1, 2, 35, 2, 70)),
    (ops.cross_scan, scans.image_inputs(3, 5, 7, 35, 2, 5)),
    (ops.cross_scan, scans.image_inputs(3, 5, 7, 35, 1, 12, torch.bfloat16)),  # on tensor cores
):
    scans.with_gradients(op, [x.cuda() for x in tensors])
for form, K in (("cross_entropy", 1032), ("cosine", 17)):
    student, teacher = (torch.rand(crops, 3, K, device="cuda").bfloat16() for crops in (4, 2))
    options = {"form": form, "bounded": form == "cosine", "inplace_backward": False}
    temperatures = {"student_temp": 0.1, "teacher_temp": 0.04}
    center = torch.zeros(K, device="cuda")
    crop_pairs_loss(student.requires_grad_(), teacher, center, **options, **temperatures).backward()
tensors = [torch.rand(size, device="cuda") for size in (1, 9000)]
ops.clip_each_(tensors, torch.stack([x.norm() for x in tensors]), 0.1)
ops.lerp_each_(tensors, [x.clone() for x in tensors], torch.tensor(0.5, device="cuda"))
torch.cuda.synchronize()
print("ran")
"""


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="needs compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool):
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", PROGRAM]
    # every tensor an allocation of its own, so that a read past its end is one past an allocation's
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if "Device not supported" in said:
        pytest.skip("compute-sanitizer does not support this device or its driver")
    assert done.returncode == 0, said[-3000:]
    assert "ran" in said
