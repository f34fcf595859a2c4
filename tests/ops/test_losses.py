"""The losses against double loops in float64, and against values worked out for random heads."""

import math

import pytest
import torch

from clever_fast import ops
from clever_fast.benchmarks import traffic
from clever_fast.models import DinoHead

TEMPERATURES = {"student_temp": 0.1, "teacher_temp": 0.04}
SIZES = [(2, 2, 1, 3), (10, 2, 3, 17), (4, 1, 2, 5), (3, 3, 4, 64)]  # V, G, N, K


def logits(V, G, N, K, dtype=torch.float64):
    torch.manual_seed(V * 100 + K)
    student = torch.rand(V, N, K, dtype=torch.float64) * 2 - 1
    teacher = torch.rand(G, N, K, dtype=torch.float64) * 2 - 1
    center = torch.rand(K, dtype=torch.float64) * 0.1
    return student.to(dtype).requires_grad_(), teacher.to(dtype).requires_grad_(), center


def softmax(row, temperature):
    exponentials = [math.exp(x / temperature) for x in row]
    return [e / sum(exponentials) for e in exponentials]


def looped(student, teacher, center, similarity):
    """Every pair, image and prototype one after another; `similarity` of two distributions over K."""
    total, pairs = 0.0, 0
    for g in range(len(teacher)):
        for v in range(len(student)):
            if v == g:
                continue
            mean = 0.0
            for n in range(student.shape[1]):
                P = softmax((teacher[g, n] - center).tolist(), 0.04)
                Q = softmax(student[v, n].tolist(), 0.1)
                mean += similarity(P, Q) / student.shape[1]
            total, pairs = total + abs(mean), pairs + 1
    return total / pairs


def cross_entropy(P, Q):
    return -sum(p * math.log(q) for p, q in zip(P, Q, strict=True))


def cosine(P, Q):
    return dot(P, Q) / (math.sqrt(dot(P, P)) * math.sqrt(dot(Q, Q)))


def dot(P, Q):
    return sum(p * q for p, q in zip(P, Q, strict=True))


@pytest.mark.parametrize("sizes", SIZES)
def test_losses_equal_double_loops(sizes):
    student, teacher, center = logits(*sizes)
    rows = student.detach(), teacher.detach(), center
    distillation = ops.distillation_loss(student, teacher, center, **TEMPERATURES)
    assert distillation.item() == pytest.approx(looped(*rows, cross_entropy), rel=1e-12)
    for name, similarity in (("cosine", cosine), ("dot", dot)):
        orthogonality = ops.orthogonality_loss(student, teacher, center, similarity=name, **TEMPERATURES)
        assert orthogonality.item() == pytest.approx(looped(*rows, similarity), rel=1e-12)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("op", [ops.distillation_loss, ops.orthogonality_loss])
def test_gradients_reach_the_student_alone(op, sizes):
    student, teacher, center = logits(*sizes)
    assert torch.autograd.gradcheck(lambda s: op(s, teacher, center, **TEMPERATURES), student)
    op(student, teacher, center, **TEMPERATURES).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_a_crop_is_not_compared_with_itself():
    student, teacher, center = logits(2, 2, 3, 7)
    only_other = ops.distillation_loss(student[[1, 0]], teacher, center, **TEMPERATURES)
    by_hand = sum(
        ops.distillation_loss(torch.stack([student[v], student[v]]), teacher[[g]], center, **TEMPERATURES)
        for g, v in ((0, 0), (1, 1))
    )
    assert only_other.item() == pytest.approx(by_hand.item() / 2, rel=1e-12)


def test_half_precision_logits_are_summed_in_float32():
    exact = logits(6, 2, 4, 4096)
    half = [x.detach().bfloat16() for x in exact[:2]]
    same = [x.double() for x in half]
    for op in (ops.distillation_loss, ops.orthogonality_loss):
        with torch.autocast("cpu", torch.bfloat16):  # as in the loop
            value = op(*half, exact[2].float(), **TEMPERATURES)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(op(*same, exact[2], **TEMPERATURES).item(), rel=1e-5)


@pytest.mark.parametrize(("teacher", "center"), [((2, 2, 4), (5,)), ((2, 1, 5), (5,)), ((2, 2, 5), (4,))])
def test_shapes_that_do_not_fit_are_refused(teacher, center):
    with pytest.raises(ValueError, match="do not fit"):
        ops.distillation_loss(torch.zeros(3, 2, 5), torch.zeros(teacher), torch.zeros(center), **TEMPERATURES)


def test_a_single_crop_has_no_pair():
    with pytest.raises(ValueError, match="no pair"):
        ops.orthogonality_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.zeros(3), **TEMPERATURES)


@pytest.fixture(scope="module")
def heads():
    torch.manual_seed(0)
    return DinoHead(307, 65536), torch.randn(8, 307), torch.randn(8, 307)


@pytest.mark.parametrize(
    ("case", "ce", "cos"), [("identical", 10.32, 0.70), ("independent", 11.20, 0.25), ("uniform", 11.28, 0.82)]
)
def test_values_of_random_heads_with_65536_prototypes(heads, case, ce, cos):
    head, x, y = heads
    with torch.no_grad():
        student = head(x).expand(2, -1, -1)
        teacher = {"identical": head(x), "independent": head(y), "uniform": torch.zeros(8, 65536)}[case][None]
        center = torch.zeros(65536)
        assert ops.distillation_loss(student, teacher, center, **TEMPERATURES).item() == pytest.approx(ce, abs=0.06)
        assert ops.orthogonality_loss(student, teacher, center, **TEMPERATURES).item() == pytest.approx(cos, abs=0.06)


def test_dot_product_is_no_signal_at_65536_prototypes(heads):
    head, x, y = heads
    with torch.no_grad():
        value = ops.orthogonality_loss(
            head(x).expand(2, -1, -1), head(y)[None], torch.zeros(65536), similarity="dot", **TEMPERATURES
        )
    assert 1e-5 < value.item() < 1e-4


def test_norm_gap_and_its_gradient():
    torch.manual_seed(0)
    left = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64)]
    right = [torch.randn(2, dtype=torch.float64, requires_grad=True)]
    totals = [sum(x * x for t in side for x in t.flatten().tolist()) for side in (left, right)]
    gap = totals[0] - totals[1]
    value, logged = ops.norm_gap(left, right)
    value.backward()
    assert logged.tolist() == pytest.approx(totals, rel=1e-12)
    assert not logged.requires_grad
    assert value.item() == pytest.approx(abs(gap), rel=1e-12)
    torch.testing.assert_close(left[0].grad, math.copysign(2, gap) * left[0].detach())
    torch.testing.assert_close(right[0].grad, -math.copysign(2, gap) * right[0].detach())


@pytest.mark.parametrize("sizes", SIZES)
def test_the_released_form_gives_the_same_values_and_gradients(sizes):
    for op, options in (
        (ops.distillation_loss, {}),
        (ops.orthogonality_loss, {}),
        (ops.orthogonality_loss, {"similarity": "dot"}),
    ):
        found = []
        for kernels in ("reference", "released"):
            student, teacher, center = logits(*sizes, dtype=torch.float32)
            with ops.selection.use(kernels):
                value = op(student, teacher, center.float(), **TEMPERATURES, **options)
            value.backward()
            found.append((value.detach(), student.grad))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_the_released_form_moves_what_the_released_code_moves():
    """37.9 GB in about 950 launches, the numbers that the fused form is compared with."""
    moved = [traffic.total(traffic.released(form, 128, 65536)) for form in ("cross_entropy", "cosine")]
    assert [round(t.bytes / 1e9, 1) for t in moved] == [pytest.approx(11.4, rel=0.03), pytest.approx(26.5, rel=0.03)]
    assert sum(t.launches for t in moved) == pytest.approx(950, rel=0.06)
