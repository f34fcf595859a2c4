"""The geometry of crops, fused against two images one after the other; against OpenCV and torchvision."""

import math

import numpy as np
import pytest
import torch

from clever_fast.ops import selection
from clever_fast.ops.deformation import PARAMETERS, deformation, fused, reference
from tests.ops.fused_device import DEVICE, MARK
from tests.ops.test_photometry import noise

pytestmark = MARK
IDENTITY, FLIP, STILL = (1, 0, 0, 1), (-1, 0, 0, 1), (0, 0, 1, 1, 0, 0)


def turn(degrees):
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (cos, -sin, sin, cos)


def rows(*values):
    return torch.tensor(values, dtype=torch.float32, device=DEVICE)


def field(F=64, seed=0):
    """Smooth, of standard deviation 1."""
    noise = torch.randn(1, 2, F // 4, F // 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (F, F), mode="bicubic")[0].contiguous().to(DEVICE)


def gain(S):
    """Larger at the border, as of an elastic deformation."""
    return 1 + torch.linspace(-0.4, 0.4, S).abs().to(DEVICE)


@pytest.mark.parametrize("S", [1, 2, 5, 33])
def test_it_is_that_of_the_equations(S):
    matrices = [IDENTITY, FLIP, turn(90), turn(30), turn(-71.3), turn(45)]
    moves = [STILL, (3, 5, 1, 1, 2.5, -1.5), (60, 9, -1, 1, 30.0, 30.0), (63, 63, -1, -1, 0.0, 1.0)]
    parameters = rows(*((*matrix, *move) for move in moves for matrix in matrices))
    crops = noise(4, 6, S)
    found, expected = (
        fused.deformation(crops, parameters, field(), gain(crops.shape[2])),
        reference.deformation(crops, parameters, field(), gain(crops.shape[2])),
    )
    gap = (found.int() - expected.int()).abs()
    assert (gap > 1).double().mean() <= 2e-3  # a place half between two pixels
    assert (gap > 0).double().mean() <= 1e-2
    assert torch.equal(found[0, 0], crops[0, 0])
    assert torch.equal(found[0, 1], crops[0, 1].flip(1))
    still = fused.deformation(crops[:1], parameters[:6], None, None)
    assert torch.equal(still, found[:1])
    assert torch.equal(still, reference.deformation(crops[:1], parameters[:6], None, None))


def test_quarter_turns_lose_no_pixel():
    for S in (7, 8):
        crops = noise(1, 4, S)
        parameters = rows(*((*np.rint(turn(90 * quarters)), *STILL) for quarters in range(4)))
        found = fused.deformation(crops, parameters, None, None)
        for quarters in range(4):
            assert torch.equal(found[0, quarters], torch.rot90(crops[0, quarters], quarters))


def test_rotation_is_torchvisions_and_elastic_opencvs():
    tv = pytest.importorskip("torchvision.transforms.v2.functional")
    cv2 = pytest.importorskip("cv2")
    angles, S = (30.0, -71.3, 12.0, -90.0), 48
    crops, smooth = noise(1, 4, S), field()
    turned = reference.deformation(crops, rows(*((*turn(angle), *STILL) for angle in angles)), None, None)[0]
    expected = [tv.rotate(crop.permute(2, 0, 1), angle).permute(1, 2, 0) for crop, angle in zip(crops[0], angles)]
    assert (turned != torch.stack(expected)).double().mean() < 5e-3

    parameters = rows(*((*IDENTITY, 3, 5, 1, 1, 2.5, scale) for scale in (1.5, -1.5, 4.0, 20.0)))
    moved = reference.deformation(crops, parameters, smooth, torch.ones(crops.shape[2], device=DEVICE))[0].int()
    y, x = np.mgrid[:S, :S].astype(np.float32)
    for crop, (*_, scale_y, scale_x), ours in zip(crops[0], parameters.tolist(), moved):
        dx, dy = smooth[:, 3 : 3 + S, 5 : 5 + S].cpu().numpy()
        maps = x + np.float32(scale_x) * dx, y + np.float32(scale_y) * dy
        theirs = cv2.remap(crop.cpu().numpy(), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        gap = np.abs(ours.cpu().numpy() - theirs.astype(int))
        assert gap.mean() < 0.5  # OpenCV before 5.0 rounds the place to 1/32 px
        assert (theirs == 0).any() == (ours == 0).any()


def test_strided_crops_are_read_in_place():
    stacked = noise(5, 3, 9).transpose(0, 1).contiguous().transpose(0, 1)
    parameters = rows(*((*turn(7 * i), 3, 5, 1, 1, 2.5, i % 2) for i in range(15)))
    found = fused.deformation(stacked, parameters, field(), gain(9))
    assert torch.equal(found, fused.deformation(stacked.contiguous(), parameters, field(), gain(9)))


@pytest.mark.parametrize("kernels", ["reference", "fused", "released"])
def test_on_a_cpu_the_public_op_is_the_reference_whatever_was_asked_for(kernels):
    crops, parameters = noise(2, 2, 8).cpu(), rows(*([(*turn(30), 1, 2, 1, 1, 2.0, 2.0)] * 4)).cpu()
    with selection.use(kernels):
        found = deformation(crops, parameters, field().cpu())
    assert torch.equal(found, reference.deformation(crops, parameters, field().cpu(), torch.ones(crops.shape[2])))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c, p, f: (c.float(), p, f), "expected uint8"),
        (lambda c, p, f: (c[0], p, f), r"expected \(V, N, S, S, 3\)"),
        (lambda c, p, f: (c, p[:3], f), r"expected \(4, 10\) float32"),
        (lambda c, p, f: (c, p.t().contiguous().t(), f), "contiguous"),
        (lambda c, p, f: (c, p, f[:1]), r"expected \(2, F, F\)"),
        (lambda c, p, f: (c, p, f[:, :7, :7]), "F of at least 8"),
        (lambda c, p, f: (c, p, f.double()), "contiguous float32"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    crops, parameters, smooth = change(noise(2, 2, 8), rows(*([(*IDENTITY, *STILL)] * 4)), field())
    with pytest.raises(ValueError, match=said):
        deformation(crops, parameters, smooth)


def test_there_are_as_many_columns_as_the_kernel_reads():
    assert len(PARAMETERS) == fused.P.value
