"""The scans' CPU kernels against the recurrence in float64: values, all gradients, operators and errors."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clever_fast import ops
from clever_fast.ops import extension
from clever_fast.ops.selective_scan import reference
from clever_fast.ops.selective_scan.fused import segment_length
from tests.moat import Moat
from tests.ops import scans

needs_library = pytest.mark.skipif(bool(extension.missing), reason="needs the library built from csrc")


@pytest.fixture(autouse=True)
def new_memory_is_nan():
    """What a kernel leaves unwritten shows: torch fills new tensors with NaN in this mode."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_the_library_was_built_here():
    assert extension.has_kernels("cpu"), extension.describe()


@needs_library
@pytest.mark.parametrize(("L", "S", "dtype"), scans.MATRIX)
def test_selective_scan_equals_the_recurrence(L, S, dtype):
    N, K, D = (2, 2, 19) if L < 500 else (1, 1, 5)  # 19: one full vector of channels and a part of one
    tensors = [Moat(x).inner for x in scans.inputs(N, K, D, S, L, dtype)]
    scans.assert_results(
        scans.NAMES, scans.with_gradients(ops.selective_scan, tensors), *scans.expected(N, K, D, S, L, dtype)
    )


@needs_library
@pytest.mark.parametrize(("size", "dtype"), scans.CROSS_MATRIX)
def test_cross_scan_equals_four_scans(size, dtype):
    tensors = [Moat(x).inner for x in scans.image_inputs(3, *size, dtype)]
    results = scans.with_gradients(ops.cross_scan, tensors)
    # both round the projection to 16 bits, at other places: one rounding of difference
    floor = scans.FLOOR if dtype == torch.float32 else torch.finfo(dtype).eps
    scans.assert_results(scans.CROSS_NAMES, results, *scans.expected_of_image(3, size, dtype), floor=floor)


@needs_library
def test_without_softplus():
    tensors = scans.inputs(2, 1, 5, 2, 30)
    tensors[1], tensors[6] = tensors[1].abs(), tensors[6].abs()

    def plain(*xs):
        return reference.selective_scan(*xs, delta_softplus=False)

    results = scans.with_gradients(lambda *xs: ops.selective_scan(*xs, delta_softplus=False), tensors)
    exact = scans.with_gradients(plain, [x.double() for x in tensors])
    scans.assert_results(scans.NAMES, results, exact, scans.with_gradients(plain, tensors))


@needs_library
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_16_bit_inputs_stay_finite(dtype):
    tensors = scans.inputs(1, 1, 4, 1, 64, dtype)
    tensors[0], tensors[3] = tensors[0] * 100, tensors[3] * 100
    y = ops.selective_scan(*tensors)
    assert y.dtype == torch.float32
    assert y.isfinite().all()
    assert y.abs().max() > torch.finfo(torch.float16).max  # a 16-bit output would be infinite


@needs_library
@pytest.mark.parametrize("name", scans.NAMES[1:])
def test_nan_in_any_input_reaches_the_same_outputs_as_in_the_recurrence(name):
    tensors = scans.inputs(1, 1, 20, 1, 9)
    tensors[scans.NAMES.index(name) - 1].view(-1)[1] = torch.nan
    lost = scans.recurrence(*tensors).isnan()
    assert lost.any()
    assert torch.equal(ops.selective_scan(*tensors).isnan(), lost)


@needs_library
def test_strided_inputs_and_gradients():
    tensors = scans.inputs(2, 2, 5, 2, 30)
    strided = [torch.stack([x, x + 1], -1)[..., 0] for x in tensors]
    assert not strided[0].is_contiguous()
    leaves = [x.requires_grad_() for x in strided]
    y = ops.selective_scan(*leaves)
    gradients = torch.autograd.grad(y, leaves, scans.output_gradient(y.mT.shape).mT)
    exact = [x.double().requires_grad_() for x in tensors]
    right = torch.autograd.grad(scans.recurrence(*exact), exact, scans.output_gradient(y.mT.shape).mT.double())
    for name, mine, other in zip(scans.NAMES[1:], gradients, right, strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-4, msg=name)


def test_the_references_gradients():
    tensors = [x.double().requires_grad_() for x in scans.inputs(1, 2, 2, 2, 4)]
    assert torch.autograd.gradcheck(ops.selective_scan, tensors)
    images = [x.double().requires_grad_() for x in scans.image_inputs(1, 2, 3, 2, 2, 2)]
    assert torch.autograd.gradcheck(ops.cross_scan, images)


@needs_library
@pytest.mark.filterwarnings("ignore:Input .* is not a double precision")
@pytest.mark.parametrize(
    ("op", "tensors"),
    [(ops.selective_scan, scans.inputs(1, 2, 2, 2, 4)), (ops.cross_scan, scans.image_inputs(1, 2, 3, 2, 2, 2))],
)
def test_the_kernels_gradients_by_differences(op, tensors):
    leaves = [(x * 0.3).requires_grad_() for x in tensors]
    assert torch.autograd.gradcheck(op, leaves, eps=1e-2, atol=2e-3, rtol=2e-2, nondet_tol=0.0)


@needs_library
@pytest.mark.parametrize("dtype", scans.DTYPES)
def test_the_operators_are_well_formed(dtype):
    u, delta, A, B, C, D, bias = scans.inputs(2, 2, 5, 2, 30, dtype)
    args = [u, delta, A.t().contiguous(), B, C, D, bias]
    torch.library.opcheck(torch.ops.clever_fast.selective_scan, [*(x.requires_grad_() for x in args), True, 32])
    x, low = torch.randn(2, 3, 5, 4).to(dtype), torch.randn(2, 3, 5, 4, 7).to(dtype)
    weights = torch.randn(4, 3, 4), -torch.rand(4, 2, 4), torch.randn(4, 4), torch.randn(4, 4)
    leaves = [t.requires_grad_() for t in (x, low, *weights)]
    torch.library.opcheck(torch.ops.clever_fast.cross_scan, [*leaves, 16])


def kernel_inputs(N: int, H: int, W: int, D: int, S: int, R: int) -> list[torch.Tensor]:
    """What `torch.ops.clever_fast.cross_scan` is given. A projection is left out: BLAS may sum it in another order."""
    g = torch.Generator().manual_seed(N + H + W + D)
    x, low = torch.randn(N, H, W, D, generator=g), torch.randn(N, H, W, 4, R + 2 * S, generator=g)
    weights = torch.randn(4, R, D, generator=g) * R**-0.5, -torch.rand(4, S, D, generator=g) * 2 - 0.01
    return [x, low, *weights, torch.randn(4, D, generator=g), torch.rand(4, D, generator=g) * 2 - 2]


@needs_library
def test_the_kernels_give_equal_bits_on_any_number_of_threads():
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        results.append(
            scans.with_gradients(
                lambda *xs: torch.ops.clever_fast.cross_scan(*xs, 16)[0], kernel_inputs(5, 6, 7, 20, 1, 3)
            )
            + scans.with_gradients(ops.selective_scan, scans.inputs(3, 2, 20, 2, 70))
        )
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_library
@pytest.mark.parametrize("op", [ops.selective_scan, ops.cross_scan])
def test_torch_compile_needs_no_graph_break(op):
    tensors = scans.inputs(2, 2, 3, 1, 20) if op is ops.selective_scan else scans.image_inputs(2, 4, 5, 3, 1, 2)
    compiled = torch.compile(lambda *xs: op(*xs) * 2, fullgraph=True, backend="aot_eager")
    for mine, plain in zip(
        scans.with_gradients(compiled, tensors),
        scans.with_gradients(lambda *xs: op(*xs) * 2, tensors),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain)


@needs_library
def test_the_fused_operator_keeps_no_copy_of_four_sequences():
    N, side, D = 2, 24, 64
    tensors = [x.requires_grad_() for x in scans.image_inputs(N, side, side, D, 1, 4)]
    four = N * 4 * D * side * side * 4  # bytes
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        y = ops.cross_scan(*tensors)
        y.backward(torch.ones_like(y))
    largest = max(event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]")
    assert 0 < largest < four / 2


def change(index, new):
    return lambda tensors: [*tensors[:index], new(tensors[index]), *tensors[index + 1 :]]


BAD = {
    "u": (change(0, lambda x: x[0]), r"u has shape \(4, 5\); expected \(N, K\*D, L\)"),
    "no position": (change(0, lambda x: x[..., :0]), r"u has shape \(2, 4, 0\).*at least 1"),
    "groups": (
        change(3, lambda x: x[:, :1].repeat(1, 3, 1, 1)),
        r"B has shape \(2, 3, 1, 5\).*K dividing the 4 channels",
    ),
    "delta": (change(1, lambda x: x[:, :, :4]), r"delta has shape \(2, 4, 4\); expected \(2, 4, 5\)"),
    "A": (change(2, lambda x: x[:3]), r"A has shape \(3, 1\); expected \(4, 1\)"),
    "C": (change(4, lambda x: x[:1]), r"C has shape \(1, 2, 1, 5\); expected \(2, 2, 1, 5\)"),
    "D": (change(5, lambda x: x[:1]), r"D has shape \(1,\); expected \(4,\)"),
    "delta_bias": (change(6, lambda x: x[None]), r"delta_bias has shape \(1, 4\); expected \(4,\)"),
    "integers": (change(0, lambda x: x.int()), r"u \(2, 4, 5\) is torch.int32; expected float32, float16"),
    "mixed": (change(4, lambda x: x.half()), r"C \(2, 2, 1, 5\) is torch.float16; expected torch.float32"),
    "weights": (change(2, lambda x: x.half()), r"A \(4, 1\) is torch.float16; expected torch.float32"),
    "device": (change(5, lambda x: x.to("meta")), r"D \(4,\) is on meta; expected cpu"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_of_selective_scan(case):
    spoil, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        ops.selective_scan(*spoil(scans.inputs(2, 2, 2, 1, 5)))


def test_too_many_states():
    with pytest.raises(ValueError, match="S is 17; expected at most 16"):
        ops.selective_scan(*scans.inputs(1, 1, 2, 17, 3))
    with pytest.raises(ValueError, match="S is 17; expected at most 16"):
        ops.cross_scan(*scans.image_inputs(1, 2, 2, 2, 17, 1))


BAD_IMAGES = {
    "x": (change(0, lambda x: x[0]), r"x has shape \(2, 3, 4\); expected \(N, H, W, D\)"),
    "empty": (change(0, lambda x: x[:0]), r"x has shape \(0, 2, 3, 4\).*at least 1"),
    "x_proj_weight": (change(1, lambda x: x[:, :3]), r"x_proj_weight has shape \(4, 3, 4\); expected \(4, 4, 4\)"),
    "dt_weight": (change(2, lambda x: x[:3]), r"dt_weight has shape \(3, 4, 2\); expected \(4, 4, 2\)"),
    "A": (change(3, lambda x: x[0]), r"A has shape \(1,\); expected \(4\*D, S\)"),
    "rank": (change(2, lambda x: torch.zeros(4, 4, 129)), "R of at most 128"),
    "dtype": (change(5, lambda x: x.double()), r"delta_bias \(16,\) is torch.float64; expected torch.float32"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_inputs_of_cross_scan(case):
    spoil, message = BAD_IMAGES[case]
    with pytest.raises(ValueError, match=message):
        ops.cross_scan(*spoil(scans.image_inputs(2, 2, 3, 4, 1, 2)))


def test_without_the_library_the_reference_runs_with_one_warning():
    program = """
import pathlib, warnings
exists = pathlib.Path.exists
pathlib.Path.exists = lambda self: self.name != "_C.so" and exists(self)
from clever_fast import ops
from tests.ops import scans
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(2):
        y = ops.selective_scan(*scans.inputs(1, 1, 2, 1, 5))
        ops.cross_scan(*scans.image_inputs(1, 2, 2, 2, 1, 1))
assert [w for w in seen if "slow reference" in str(w.message)] == seen and len(seen) == 1, seen
assert "pip install" in str(seen[0].message) and seen[0].filename != ops.extension.__file__
assert (y == scans.recurrence(*scans.inputs(1, 1, 2, 1, 5))).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_cuda_tensors_never_take_the_reference(monkeypatch):
    monkeypatch.setattr(extension, "has_kernels", lambda device_type: device_type == "cpu")

    class OnCuda:
        device, dtype = torch.device("cuda:1"), torch.float32

    with pytest.raises(ValueError, match=r"on cuda:1 needs the CUDA kernels.*built without nvcc.*pip install"):
        extension.takes_kernel("selective_scan", OnCuda())


def test_segments_are_whole_warps_or_vectors_and_waste_little():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for L in range(1, 4000):
        assert segment_length(L, cuda) in range(8, 57, 8)
        assert segment_length(L, cpu) in range(16, 65, 16)
    vmamba = (9, 36, 49, 144, 196, 576, 784, 3136)
    assert [segment_length(L, cuda) for L in vmamba] == [16, 40, 56, 48, 40, 48, 56, 56]
    assert [segment_length(L, cpu) for L in vmamba] == [16, 48, 64, 64, 64, 64, 64, 64]
