"""Every op on tensors of a GPU that is not the current one."""

import pytest
import torch

from clever_fast import ops
from clever_fast.ops.crop_pairs import crop_pairs_loss
from tests.ops import scans

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")]


def on(device: str) -> list[torch.Tensor]:
    """What every op makes of the same inputs, on the CPU."""
    found = scans.with_gradients(ops.cross_scan, [x.to(device) for x in scans.image_inputs(2, 5, 7, 35, 1, 5)])
    found += scans.with_gradients(ops.selective_scan, [x.to(device) for x in scans.inputs(1, 2, 35, 2, 70)])
    rows = torch.linspace(-1, 1, 6 * 2 * 40).view(6, 2, 40).to(device)
    student = rows[:4].clone().requires_grad_()
    options = {"student_temp": 0.1, "teacher_temp": 0.04, "bounded": True, "inplace_backward": False}
    loss = crop_pairs_loss(student, rows[4:], torch.zeros(40, device=device), form="cosine", **options)
    loss.backward()
    lists = [rows[0].clone(), rows[1].clone()]
    ops.clip_each_(lists, torch.stack([x.norm() for x in lists]), 0.1)
    ops.lerp_each_(lists, [rows[2], rows[3]], torch.tensor(0.5, device=device))
    gap, totals = ops.norm_gap(lists[:1], lists[1:])
    return [x.detach().cpu() for x in (*found, loss, student.grad, *lists, gap, totals)]


def test_ops_run_on_their_tensors_gpu():
    with torch.cuda.device(0):
        for first, second in zip(on("cuda:0"), on("cuda:1"), strict=True):
            torch.testing.assert_close(second, first)
