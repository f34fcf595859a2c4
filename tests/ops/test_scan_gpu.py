"""The scans on a GPU: against float64, repeated bit for bit, without a wait for the device."""

import pytest
import torch

from clever_fast import ops
from clever_fast.models.vmamba import VMamba
from tests.ops import scans

pytestmark = pytest.mark.gpu
MATRIX = [pytest.param(*case.values, id=case.id) for case in scans.MATRIX]
CROSS_MATRIX = [pytest.param(*case.values, id=case.id) for case in scans.CROSS_MATRIX]


def on_gpu(op, tensors):
    return [x.cpu() for x in scans.with_gradients(op, [x.cuda() for x in tensors])]


@pytest.mark.parametrize(("L", "S", "dtype"), MATRIX)
def test_selective_scan_equals_the_recurrence(L, S, dtype):
    size = (2, 2, 19) if L < 500 else (1, 1, 5)
    results = on_gpu(ops.selective_scan, scans.inputs(*size, S, L, dtype))
    scans.assert_results(scans.NAMES, results, *scans.expected(*size, S, L, dtype), floor=1e-5)


@pytest.mark.parametrize(("size", "dtype"), CROSS_MATRIX)
def test_cross_scan_equals_four_scans(size, dtype):
    results = on_gpu(ops.cross_scan, scans.image_inputs(3, *size, dtype))
    floor = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    scans.assert_results(scans.CROSS_NAMES, results, *scans.expected_of_image(3, size, dtype), floor=floor)


@pytest.mark.parametrize("S", range(1, 17))
def test_any_number_of_states(S):
    size = (2, 3, 35)
    results = on_gpu(ops.selective_scan, scans.inputs(*size, S, 61))
    scans.assert_results(scans.NAMES, results, *scans.expected(*size, S, 61, torch.float32), floor=1e-5)


def test_the_most_shared_memory():
    size = (7, 9, 40, 16, 128)  # 98 KiB: above the 48 that a block gets unasked
    results = on_gpu(ops.cross_scan, scans.image_inputs(3, *size))
    scans.assert_results(scans.CROSS_NAMES, results, *scans.expected_of_image(3, size, torch.float32), floor=1e-5)


def test_images_of_a_large_batch_are_scanned_as_alone():
    x, *weights = (x.cuda() for x in scans.image_inputs(128, 56, 56, 96, 1, 6, torch.bfloat16))
    found = []
    for images in (x, x[-2:]):
        leaf = images.clone().requires_grad_()
        y = ops.cross_scan(leaf, *weights)
        y.sum().backward()
        found.append((y[-2:].detach(), leaf.grad[-2:]))
    for whole, alone in zip(*found, strict=True):  # the projection's product may take another kernel
        assert (whole - alone).abs().max() <= 0.01 * alone.abs().max()


def test_equal_inputs_give_equal_bits():
    tensors = scans.image_inputs(16, 28, 28, 192, 1, 12, torch.bfloat16)
    first, second = (on_gpu(ops.cross_scan, tensors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_waits_for_the_device_and_a_side_stream_is_respected():
    tensors = [x.cuda().requires_grad_() for x in scans.image_inputs(4, 14, 14, 96, 1, 6)]
    expected = ops.cross_scan(*tensors)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            y = ops.cross_scan(*tensors)
            y.backward(torch.ones_like(y))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream.synchronize()
    assert torch.equal(y, expected)


def test_more_than_2_to_the_31_elements():
    N, KD, L = 2, 4 * 96, 2_900_000
    if torch.cuda.get_device_properties(0).total_memory < 40 << 30:
        pytest.skip("needs 40 GiB")
    u = torch.zeros(N, KD, L, dtype=torch.bfloat16, device="cuda")
    u[-1, -1, -1] = 1
    rest = [torch.zeros_like(u), -torch.ones(KD, 1), *(torch.ones(N, 4, 1, L).bfloat16() for _ in range(2))]
    y = ops.selective_scan(u, *(x.cuda() for x in (*rest, torch.zeros(KD), torch.zeros(KD))))
    assert y[-1, -1, -1].item() == pytest.approx(0.6931, rel=1e-3)  # softplus(0)
    assert y.count_nonzero().item() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_under_autocast_is_near_that_of_a_cpu(dtype):
    torch.manual_seed(0)
    model, x = VMamba(32, (1, 1, 2)), torch.randn(2, 3, 64, 64)
    right = model(x)
    model.cuda().to(memory_format=torch.channels_last)
    with torch.autocast("cuda", dtype):
        y = torch.compile(model, fullgraph=True)(x.cuda())
    y.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert ((y.float().cpu() - right).norm() / right.norm()).item() < (0.01 if dtype == torch.float16 else 0.05)
