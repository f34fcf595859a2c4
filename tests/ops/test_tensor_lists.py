"""Changes to lists of tensors, fused against plain torch: odd sizes, unaligned views, memory formats."""

import pytest
import torch

from clever_fast import ops
from clever_fast.ops.norm_gap import fused as norm_gap_fused
from clever_fast.ops.tensor_lists import fused, reference
from tests.moat import Moat
from tests.ops.fused_device import DEVICE, MARK

pytestmark = MARK
SHAPES = [(3, 5), (1,), (fused.CHUNK,), (2 * fused.CHUNK + 7,), (4, 3, 3, 3), (0,), (129, 65)]


def tensors(seed=0):
    torch.manual_seed(seed)
    made = [torch.randn(shape, device=DEVICE) for shape in SHAPES]
    made[4] = made[4].to(memory_format=torch.channels_last)
    return made


def unaligned(values):
    """The same values as consecutive views into one buffer, as DDP's gradient buckets hold them."""
    flat = torch.cat([torch.zeros(1, device=DEVICE), *(v.flatten() for v in values)])
    sizes = [v.numel() for v in values]
    return [part.view(v.shape) for part, v in zip(flat[1:].split(sizes), values, strict=True)]


@pytest.mark.parametrize("layout", [lambda x: x, unaligned], ids=["aligned", "unaligned"])
def test_clip_each(layout):
    given, expected = layout(tensors()), tensors()
    for factor, *pair in zip((0.1, 1.0, 2.0, 0.01, 7.0, 1.0, 0.5), given, expected, strict=True):
        for t in pair:
            t.mul_(factor)
    norms = torch.stack([t.norm() for t in expected])
    assert 0 < (norms > 3).sum() < len(norms)
    reference.clip_each_(expected, norms, 3.0)
    fused.clip_each_(given, norms, 3.0)
    for got, want in zip(given, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_a_norm_that_is_not_finite_reaches_its_gradient_alone():
    given, untouched = tensors(), tensors()
    norms = torch.ones(len(given), device=DEVICE)
    norms[0] = torch.nan
    fused.clip_each_(given, norms, 3.0)
    assert given[0].isnan().all()
    assert all(torch.equal(a, b) for a, b in zip(given[1:], untouched[1:], strict=True))


@pytest.mark.parametrize("layout", [lambda x: x, unaligned], ids=["aligned", "unaligned"])
def test_lerp_each(layout):
    given, ends, expected = layout(tensors()), layout(tensors(1)), tensors()
    reference.lerp_each_(expected, tensors(1), torch.tensor(0.25, device=DEVICE))
    fused.lerp_each_(given, ends, torch.tensor(0.25, device=DEVICE))
    for got, want, end, kept in zip(given, expected, ends, tensors(1), strict=True):
        torch.testing.assert_close(got, want)
        assert torch.equal(end, kept)
    fused.lerp_each_(given, [torch.full_like(t, torch.nan) for t in given], torch.tensor(0.0, device=DEVICE))
    assert all(t.isfinite().all() for t in given)  # weight 0 leaves them alone, whatever the end


def test_nothing_outside_the_tensors_is_touched():
    moats, ends = [Moat(t) for t in tensors()], [Moat(t) for t in tensors(1)]
    inner = [m.inner for m in moats]
    fused.lerp_each_(inner, [m.inner for m in ends], torch.tensor(0.5, device=DEVICE))
    fused.clip_each_(inner, torch.full((len(inner),), 100.0, device=DEVICE), 1.0)
    assert all(t.isfinite().all() for t in inner)
    assert all(m.intact() for m in (*moats, *ends))


def test_tensors_that_do_not_fit_are_refused():
    norms = torch.ones(1, device=DEVICE)
    with pytest.raises(ValueError, match=r"torch\.float64"):
        fused.clip_each_([torch.ones(3, device=DEVICE, dtype=torch.float64)], norms, 1.0)
    with pytest.raises(ValueError, match="gaps"):
        fused.clip_each_([torch.ones(3, 4, device=DEVICE)[:, ::2]], norms, 1.0)
    with pytest.raises(ValueError, match="memory format"):
        fused.lerp_each_([torch.ones(3, 4, device=DEVICE)], [torch.ones(4, 3, device=DEVICE).T], norms[0])


def gap_and_gradients(norm_gap, left, right):
    leaves = [[t.detach().clone().requires_grad_(i != 1) for i, t in enumerate(side)] for side in (left, right)]
    value = norm_gap(*leaves)
    (value * 0.5).backward()
    return value, [t.grad for side in leaves for t in side]


@pytest.mark.parametrize("swap", [False, True])
def test_norm_gap(swap):
    left, right = tensors(), [2 * t for t in tensors(1)]
    if swap:
        left, right = right, left
    value, gradients = gap_and_gradients(lambda a, b: norm_gap_fused.norm_gap(a, b)[0], left, right)
    with ops.selection.use("reference"):
        expected, wanted = gap_and_gradients(lambda a, b: ops.norm_gap(a, b)[0], left, right)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(norm_gap_fused.norm_gap(left, right)[1], ops.norm_gap(left, right)[1])
    for got, want in zip(gradients, wanted, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            torch.testing.assert_close(got, want)


def test_norm_gap_of_equal_sides_has_no_gradient():
    value, gradients = gap_and_gradients(lambda a, b: norm_gap_fused.norm_gap(a, b)[0], tensors(), tensors())
    assert value == 0
    assert all(g is None or g.abs().sum() == 0 for g in gradients)


def test_norm_gap_is_well_formed_and_compiles():
    left, right = [torch.randn(3, 4, device=DEVICE, requires_grad=True)], [torch.randn(5, device=DEVICE)]
    torch.library.opcheck(norm_gap_fused.norm_gap, (left, right))
    _, eager = gap_and_gradients(lambda a, b: norm_gap_fused.norm_gap(a, b)[0], left, right)
    compiled = torch.compile(lambda a, b: norm_gap_fused.norm_gap(a, b)[0], fullgraph=True, backend="aot_eager")
    _, traced = gap_and_gradients(compiled, left, right)
    assert all(torch.equal(a, b) for a, b in zip(eager, traced, strict=True) if a is not None)
