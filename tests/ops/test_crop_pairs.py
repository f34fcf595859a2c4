"""The fused losses against the references: value and gradient, every form, odd sizes, extremes, and broken copies."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from clever_fast import ops
from clever_fast.ops.crop_pairs import crop_pairs_loss, kernels, launch, operators
from tests.compare import assert_as_close_as
from tests.moat import Moat
from tests.ops.fused_device import DEVICE, MARK

pytestmark = MARK
T = {"student_temp": 0.1, "teacher_temp": 0.04}
FORMS = list(launch.FORMS)
# V, G, N, K: the standard crops; no local crops; one teacher; all crops taught; two tiles of crops; one prototype over
# some blocks; a multiple of 8 and not of 16; less than a lane; one lane
SIZES = [
    (10, 2, 2, 300), (2, 2, 3, 64), (4, 1, 2, 17), (3, 3, 2, 129), (13, 2, 1, 40), (2, 2, 1, 1025), (3, 2, 2, 1032),
    (2, 1, 3, 3), (2, 2, 1, 8),
]  # fmt: skip
FLOOR = {torch.float32: 4e-6, torch.float16: 1e-5, torch.bfloat16: 1e-5}
BF16_TRUNCATED = 2**-8 if DEVICE == "cpu" else 0.0  # the interpreter stores bfloat16 without rounding


@pytest.fixture(autouse=True)
def small_blocks(request, monkeypatch):
    """Blocks so small that a thousand prototypes fill several in each split; "as shipped" keeps the real ones."""
    if "shipped" not in request.node.name:
        for kernel, splits in (("forward", 2), ("backward", 1)):
            table = {c: launch.Config(block=256, warps=1, splits=splits) for c in launch.CONFIGS[kernel]}
            monkeypatch.setitem(launch.CONFIGS, kernel, table)


def logits(V, G, N, K, dtype=torch.float32, scale=1.0, seed=0):
    torch.manual_seed(seed)
    student, teacher = ((torch.rand(rows, N, K, device=DEVICE) * 2 - 1) * scale for rows in (V, G))
    return student.to(dtype), teacher.to(dtype), (torch.rand(K, device=DEVICE) - 0.5) * 0.4 * scale


def reference(form, student, teacher, center, temperatures=T):
    """The value and the student's gradient in plain torch, in the dtype of the arguments."""
    student = student.detach().clone().requires_grad_()
    with ops.selection.use("reference"):
        if form == "cross_entropy":
            loss = ops.distillation_loss(student, teacher, center, **temperatures)
        else:
            loss = ops.orthogonality_loss(student, teacher, center, similarity=form, **temperatures)
    loss.backward()
    return loss.detach(), student.grad


def fused(form, student, teacher, center, bounded=False, inplace=False, temperatures=T):
    """The same from the kernels; the student's memory is written only if `inplace`."""
    leaf = student.detach().requires_grad_()
    loss = crop_pairs_loss(
        leaf.view_as(leaf), teacher, center, form=form, bounded=bounded, inplace_backward=inplace, **temperatures
    )
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def check(form, student, teacher, center, bounded=False, temperatures=T, floor=0.0):
    """Value and gradient no further from float64 than the reference is in the same dtype, plus a floor."""
    exact = reference(form, student.double(), teacher.double(), center.double(), temperatures)
    plain = reference(form, student, teacher, center, temperatures)
    ours = fused(form, student, teacher, center, bounded, temperatures=temperatures)
    truncated = BF16_TRUNCATED if student.dtype == torch.bfloat16 else 0.0
    for name, r, o, e in zip(("value", "gradient"), plain, ours, exact, strict=True):
        allowed = max(floor, FLOOR[student.dtype]) + (truncated if name == "gradient" else 0.0)
        assert_as_close_as(r, o, e, floor=allowed, name=f"{form} {name}")
    assert ours[1].dtype == student.dtype


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", SIZES)
def test_value_and_gradient(sizes, form, bounded):
    check(form, *logits(*sizes), bounded)


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradient_as_shipped(form, bounded):
    check(form, *logits(2, 2, 1, 9001), bounded)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision(form, bounded, dtype):
    check(form, *logits(10, 2, 2, 520, dtype), bounded)


def test_a_teacher_of_another_dtype():
    student, teacher, center = logits(4, 2, 2, 100)
    check("cosine", student.half(), teacher, center)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["huge", "one-hot", "equal", "student equals teacher", "rising", "falling"])
def test_extremes(form, case):
    student, teacher, center = logits(4, 2, 2, 2100, scale=1e4 if case == "huge" else 1.0)
    if case == "one-hot":
        teacher.zero_()[:, :, 7] = 100.0
    elif case == "equal":
        student.fill_(0.3)
        teacher.fill_(-0.2)
        center.fill_(0.1)
    elif case == "student equals teacher":
        student[:] = teacher[0]
    elif case in ("rising", "falling"):  # every block brings a new maximum, or none does
        rise = torch.arange(2100, device=DEVICE) / 20.0
        student += rise if case == "rising" else -rise
        teacher += rise if case == "rising" else -rise
    check(form, student, teacher, center)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [0.0277, 0.02])  # the lowest with a constant maximum, and one below
def test_bounded_logits_at_their_bounds(form, temperature):
    """Maxima as far from the constant as |logits| <= 1 and |center| <= 1 allow, on both sides.

    The reference subtracts the true maximum and keeps more digits of such exponents, 52 here: hence the higher floor.
    """
    temperatures = {"student_temp": temperature, "teacher_temp": temperature}
    assert launch.is_bounded(**temperatures) == (temperature == 0.0277)
    student, teacher, center = logits(3, 2, 2, 600)
    for sign in (-1.0, 1.0):
        # equal rows: all maxima at one end; their values may differ by what a 16-bit cosine is off
        ends = [torch.full_like(x, sign) + 0.004 * torch.rand_like(x) for x in (student, teacher)]
        check(form, *ends, center.fill_(sign), bounded=True, temperatures=temperatures, floor=5e-5)
        center[5] = -sign
        check(form, *ends, center, bounded=True, temperatures=temperatures, floor=5e-5)


def assert_same(got, want):
    """Bit for bit; a GPU's compiler adds up in another order where other rows are aligned."""
    assert (got - want).abs().max() <= (1e-5 * want.abs().max() if DEVICE == "cuda" else 0.0)


@pytest.mark.parametrize("form", FORMS)
def test_inputs_of_any_layout_are_read_within_their_bounds(form):
    V, G, N, K = 4, 2, 3, 1100
    dense = logits(V, G, N, K)
    expected = fused(form, *dense)
    wide = logits(V, G, N, K + 9)
    wide[0][..., :K], wide[1][..., :K] = dense[:2]
    columns = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in dense[:2]]  # prototypes are not neighbours
    images_first = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in dense[:2]]
    for student, teacher in ((wide[0][..., :K], wide[1][..., :K]), columns, images_first):
        for got, want in zip(fused(form, student, teacher, dense[2]), expected, strict=True):
            assert_same(got, want)
    moats = [Moat(x) for x in dense]
    for inplace in (False, True):
        for got, want in zip(fused(form, *(m.inner for m in moats), inplace=inplace), expected, strict=True):
            assert_same(got, want)
        assert all(m.intact() for m in moats)


def test_the_gradient_takes_the_logits_place_only_on_request():
    student, teacher, center = logits(4, 2, 2, 50)
    kept = student.clone()
    _, gradient = fused("cosine", student, teacher, center)
    assert torch.equal(student, kept)
    _, same = fused("cosine", student, teacher, center, inplace=True)
    assert torch.equal(student, gradient)
    assert same.data_ptr() == student.data_ptr()


def test_a_second_backward_through_overwritten_logits_is_refused():
    student, teacher, center = logits(4, 2, 2, 50)
    leaf = student.requires_grad_()
    loss = crop_pairs_loss(leaf * 1.0, teacher, center, form="dot", bounded=True, inplace_backward=True, **T)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


@pytest.mark.parametrize("change", [{"splits": 1}, {"splits": 5}, {"block": 1024, "warps": 4}])
@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_splits_and_blocks_change_only_the_rounding(kernel, change, monkeypatch):
    inputs = logits(3, 2, 2, 1500)
    expected = fused("cross_entropy", *inputs)
    table = {c: replace(config, **change) for c, config in launch.CONFIGS[kernel].items()}
    monkeypatch.setitem(launch.CONFIGS, kernel, table)
    for got, want in zip(fused("cross_entropy", *inputs), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-8)


def test_the_center_may_be_updated_before_the_backward():
    student, teacher, center = logits(4, 2, 2, 50)
    _, expected = fused("cosine", student, teacher, center)
    leaf = student.requires_grad_()
    loss = crop_pairs_loss(leaf, teacher, center, form="cosine", bounded=False, inplace_backward=False, **T)
    center.add_(1.0)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf)[0], expected)


def test_the_same_bits_every_time():
    inputs = logits(10, 2, 4, 2000, torch.bfloat16)
    first, second = (fused("cosine", *inputs) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.gpu
def test_memory_beyond_the_gradient():
    student, teacher, center = logits(10, 2, 64, 16384, torch.bfloat16)
    for inplace, gradient in ((False, student.nbytes), (True, 0)):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        fused("cosine", student, teacher, center, bounded=True, inplace=inplace)
        assert torch.cuda.max_memory_allocated() - before <= gradient + 64 * 2**20


def test_no_images():
    student, teacher, center = logits(4, 2, 0, 50)
    loss, gradient = fused("cross_entropy", student, teacher, center)
    assert loss.isnan()  # as every mean of nothing in torch
    assert gradient.shape == (4, 0, 50)


def test_nan_is_passed_on():
    student, teacher, center = logits(4, 2, 2, 50)
    teacher[1, 1, 3] = torch.nan
    loss, gradient = fused("cross_entropy", student, teacher, center)
    assert loss.isnan()
    assert gradient[0, 1].isnan().all()
    assert gradient[:, 0].isfinite().all()


def test_what_the_kernels_cannot_read_is_refused():
    student, teacher, center = logits(3, 2, 2, 5)
    options = {"form": "dot", "bounded": False, "inplace_backward": False, **T}
    with pytest.raises(ValueError, match="teacher is torch"):
        crop_pairs_loss(student, teacher.double(), center, **options)
    with pytest.raises(ValueError, match="do not fit"):
        crop_pairs_loss(student, teacher[:, :, :4], center, **options)


def test_operators_are_well_formed():
    student, teacher, center = logits(4, 2, 2, 40)
    torch.library.opcheck(operators.forward, (student.requires_grad_(), teacher, center, 0.1, 0.04, 0, True, False))
    _, *stats = operators.forward(student.detach(), teacher, center, 0.1, 0.04, 1, False, False)
    inputs = torch.ones((), device=DEVICE), student.detach(), teacher, center, *stats, 0.1, 0.04, 1
    torch.library.opcheck(operators.backward, inputs)
    torch.library.opcheck(operators.backward_, inputs)


@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=() if DEVICE == "cuda" else pytest.mark.full)]
)
@pytest.mark.parametrize("inplace", [True, False])
def test_compiles_without_a_graph_break(inplace, backend):
    student, teacher, center = logits(4, 2, 2, 40)

    def loss(weight):
        options = {"form": "cosine", "bounded": True, "inplace_backward": inplace}
        return crop_pairs_loss(weight * student, teacher, center, **options, **T)

    torch._dynamo.reset()
    gradients = []
    for f in (loss, torch.compile(loss, fullgraph=True, backend=backend)):
        weight = torch.ones_like(student, requires_grad=True)
        f(weight).backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(*gradients)


def test_works_under_data_parallelism(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 50, device=DEVICE)

        def forward(self, x, teacher, center):
            options = {"form": "cosine", "bounded": False, "inplace_backward": True}
            return crop_pairs_loss(self.layer(x), teacher, center, **options, **T)

    _, teacher, center = logits(4, 2, 3, 50)
    inputs = torch.randn(4, 3, 6, device=DEVICE), teacher, center
    torch.manual_seed(0)
    model = Model()
    model(*inputs).backward()
    expected = model.layer.weight.grad.clone()
    model.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)(*inputs).backward()
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(model.layer.weight.grad, expected)


MUTATIONS = {
    "a crop is compared with itself": ("if V0 + v == g:", "if V0 + v == G:", 2),
    "the last block is dropped": ("for at in range(even, end, BLOCK)", "for at in range(end, end, BLOCK)", 1),
    "the last block is not masked": ("FORM, BOUNDED, True,", "FORM, BOUNDED, False,", 1),
    "the squared norm is rescaled once": ("s_sum[v] * scale * scale", "s_sum[v] * scale", 1),
    "the dot product forgets a new maximum": ("+ t_before[g] * fall", "", 1),
    "the teacher's old sum forgets a new maximum": (
        "before = t_sum[g] if BOUNDED else t_sum[g] * scale\n",
        "before = t_sum[g]\n",
        1,
    ),
    "lanes meet without their maxima": ("lanes += (s_max[v] - top) * t_lanes[g]", "lanes += 0.0", 1),
    "the centre is added": ("t_rows[g] - c", "t_rows[g] + c", 2),
    "the gradient misses the cosine's second part": ("norm * norm * inner", "0.0 * inner", 1),
    "the gradient's normaliser is not squared": ("norm * norm * inner", "norm * inner", 1),
    "the gradient counts a crop's own pair": ("(G - 1 if V0 + v < G else G)", "G", 1),
    "the loss's gradient is ignored": ("factor *= tl.load(grad)", "factor *= 1.0", 1),
    "the bound has the wrong sign": ("return -tl.load(lowest_center)", "return tl.load(lowest_center)", 1),
    "a row is read as its neighbour": ("n * student_n * UNIT", "(n + 1) * student_n * UNIT", 2),
    "splits meet without the first": ("there = split < splits", "there = (split < splits) & (split > 0)", 1),
}


@pytest.mark.skipif(DEVICE == "cuda", reason="broken kernels may take a GPU with them")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_kernel_fails_these_tests(mutation, monkeypatch, tmp_path):
    old, new, times = MUTATIONS[mutation]
    source = Path(kernels.__file__).read_text()
    assert source.count(old) == times, "the kernel has changed: adapt the mutation"
    path = tmp_path / "mutant.py"
    path.write_text(source.replace(old, new))
    spec = importlib.util.spec_from_file_location("mutant", path)
    mutant = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutant)
    for name in ("forward", "combine", "backward"):
        monkeypatch.setattr(kernels, name, getattr(mutant, name))
    with pytest.raises(AssertionError):
        check_all_forms()


def test_the_kernel_as_it_is_passes_the_same_checks():
    check_all_forms()


def check_all_forms():
    """Value and gradient of every form in a moat of NaN, with a gradient of the loss that is not 1."""
    for form in FORMS:
        for bounded in (False, True):
            student, teacher, center = logits(4, 2, 2, 1100)
            moats = [Moat(x) for x in (student, teacher, center - 0.3)]
            inputs = [m.inner for m in moats]
            check(form, *inputs, bounded)
            leaf = inputs[0].detach().clone().requires_grad_()
            options = {"form": form, "bounded": bounded, "inplace_backward": False}
            (crop_pairs_loss(leaf, *inputs[1:], **options, **T) * 3.0).backward()
            _, expected = reference(form, *(x.double() for x in inputs))
            assert_as_close_as(expected * 3, leaf.grad, expected * 3, floor=1e-5)
