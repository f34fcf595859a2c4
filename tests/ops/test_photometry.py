"""The colours of crops, fused against plain torch in float64: every combination of steps, odd sizes, one pixel."""

import colorsys
from itertools import product

import numpy as np
import pytest
import torch

from clever_fast.ops import selection
from clever_fast.ops.photometry import PARAMETERS, fused, photometry, reference
from tests.moat import Moat
from tests.ops.fused_device import DEVICE, MARK

pytestmark = MARK
NEUTRAL = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
JITTERED = (0.7, 1.3, 1.2, -0.08)
SIGMAS = (0.1, 0.7, 1.3, 2.0)
# each step on and off; the blurs have several lengths
STEPS = [
    (*jitter, grayscale, SIGMAS[i % 4] * blurred, solarize)
    for i, (jitter, grayscale, solarize, blurred) in enumerate(
        product((NEUTRAL[:4], JITTERED), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    )
]


def noise(V, N, S, seed=0):
    """Smooth enough to have edges and flat parts, and every grey level."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(V * N, 3, S // 4 + 1, S // 4 + 1, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (S, S), mode="bilinear")
    values = 320 * smooth - 32 + 20 * torch.randn(V * N, 3, S, S, generator=generator)
    return values.clamp(0, 255).byte().permute(0, 2, 3, 1).reshape(V, N, S, S, 3).contiguous().to(DEVICE)


def empty(M, S, dtype):
    made = torch.empty(M, 3, S, S, dtype=dtype, device=DEVICE).to(memory_format=torch.channels_last)
    return made.fill_(77 if dtype == torch.uint8 else torch.nan)


def rows(values):
    return torch.tensor(values, dtype=torch.float32, device=DEVICE)


def assert_same_levels(found, expected, share=0.002):
    """Where float32 and float64 round a grey level apart: by one, and seldom."""
    gap = (found.double() - expected.double()).abs()
    assert gap.max() <= 1.01, gap.max()
    assert (gap > 0.5).double().mean() <= share


@pytest.mark.parametrize("S", [1, 2, 5, 33])
def test_every_combination_of_steps_is_that_of_the_equations(S):
    crops, parameters = noise(4, 4, S), rows(STEPS)
    found = fused.photometry(crops, parameters, empty(16, S, torch.uint8))
    exact = reference.photometry(crops, parameters, torch.float64)
    levels = (exact.permute(0, 2, 3, 1) * exact.new_tensor(reference.STD) + exact.new_tensor(reference.MEAN)) * 255
    for row, (ours, theirs) in enumerate(zip(found.permute(0, 2, 3, 1), levels)):
        assert_same_levels(ours, theirs, share=0.01 if S > 5 else 0.3)
        if STEPS[row] == NEUTRAL:
            assert torch.equal(ours, crops.flatten(0, 1)[row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_crops_are_normalised_in_the_dtype_of_the_training(dtype):
    crops, parameters = noise(2, 3, 17), rows([NEUTRAL] * 6)
    found = fused.photometry(crops, parameters, empty(6, 17, dtype))
    exact = reference.photometry(crops, parameters, torch.float64)
    rounding = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps  # the interpreter cuts digits off
    assert ((found.double() - exact).abs() <= rounding * exact.abs().clamp_min(1)).all()
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_hue_is_that_of_hsv():
    levels = [0, 1, 127, 128, 254, 255]  # greys, primaries, ties between channels
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    drawn = np.random.default_rng(0).integers(0, 256, (184, 3))
    colors = torch.from_numpy(np.concatenate([grid, drawn]).astype(np.uint8).reshape(1, 1, 20, 20, 3)).to(DEVICE)
    turns = (-0.5, -0.1, -0.03, 0.0, 0.05, 0.1, 0.5)
    parameters = rows([(1, 1, 1, turn, 0, 0, 0) for turn in turns])
    found = fused.photometry(colors.expand(len(turns), -1, -1, -1, -1), parameters, empty(len(turns), 20, torch.uint8))
    exact = reference.turn_hue(colors[0].double(), parameters[:, 3, None, None, None].double())
    for turn, image, unrounded in zip(turns, found.permute(0, 2, 3, 1), exact):
        hsv = [colorsys.rgb_to_hsv(*color) for color in (colors.reshape(-1, 3).double() / 255).tolist()]
        expected = 255 * np.array([colorsys.hsv_to_rgb((h + turn) % 1, s, v) for h, s, v in hsv])
        np.testing.assert_allclose(unrounded.reshape(-1, 3).cpu(), expected, atol=1e-4)  # the turns are float32
        np.testing.assert_allclose(image.reshape(-1, 3).cpu(), expected, atol=0.502)


def test_the_blur_is_torchvisions_and_keeps_the_light():
    tv = pytest.importorskip("torchvision.transforms.v2.functional")
    crops = noise(1, 3, 31)
    for sigma in (0.1, 0.7, 1.3, 2.0):
        taps = 2 * reference.blur_radius(sigma) + 1
        expected = tv.gaussian_blur(crops[0].permute(0, 3, 1, 2).double(), [taps, taps], [sigma, sigma])
        found = reference.blur(crops[0].double(), torch.full((3,), sigma)).permute(0, 3, 1, 2)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    for size in (1, 2, 3, 7):
        weights = reference.blur_matrix(2.0, size).sum(1)
        torch.testing.assert_close(weights, torch.ones(size, dtype=torch.float64))


def test_strided_crops_are_read_in_place_and_nothing_else_is_written():
    stacked = noise(5, 3, 9).transpose(0, 1).contiguous().transpose(0, 1)  # as a pipeline hands them over: image-major
    parameters, moat = rows(STEPS[:15]), Moat(empty(15, 9, torch.float32))
    fused.photometry(stacked, parameters, moat.inner)
    assert torch.equal(moat.inner, fused.photometry(stacked.contiguous(), parameters, empty(15, 9, torch.float32)))
    assert moat.intact()


def test_equal_inputs_give_equal_bits_and_crops_do_not_meet():
    crops, parameters = noise(4, 4, 9), rows(STEPS)
    whole = fused.photometry(crops, parameters, empty(16, 9, torch.float32))
    assert torch.equal(fused.photometry(crops, parameters, empty(16, 9, torch.float32)), whole)
    for row in (0, 7, 15):
        alone = crops.flatten(0, 1)[row][None, None]
        made = fused.photometry(alone, parameters[row : row + 1], empty(1, 9, torch.float32))
        assert torch.equal(made[0], whole[row])


@pytest.mark.parametrize("kernels", ["reference", "fused", "released"])
def test_on_a_cpu_the_public_op_is_the_reference_whatever_was_asked_for(kernels):
    crops, parameters = noise(2, 2, 8).cpu(), rows(STEPS[-4:]).cpu()
    with selection.use(kernels):
        found = photometry(crops, parameters, out=empty(4, 8, torch.float32).cpu())
    assert torch.equal(found, reference.photometry(crops, parameters, torch.float32))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["fused", "released"])
def test_on_a_gpu_it_is_the_kernels_and_never_waits(kernels):
    crops, parameters, out = noise(4, 4, 33), rows(STEPS), empty(16, 33, torch.bfloat16)
    expected = fused.photometry(crops, parameters, empty(16, 33, torch.bfloat16))
    torch.cuda.set_sync_debug_mode("error")
    try:
        with selection.use(kernels):
            photometry(crops, parameters, out=out)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(out, expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c, p, o: (c.float(), p, o), "expected uint8"),
        (lambda c, p, o: (c[:, :, :7], p, o), r"expected \(V, N, S, S, 3\)"),
        (lambda c, p, o: (c[:, :0], p, o), "all at least 1"),
        (lambda c, p, o: (c, p[:3], o), r"expected \(4, 7\) float32"),
        (lambda c, p, o: (c, p.double(), o), r"expected \(4, 7\) float32"),
        (lambda c, p, o: (c, p, o.contiguous()), "channels-last"),
        (lambda c, p, o: (c, p, o[:3]), "channels-last"),
        (lambda c, p, o: (c, p, o.to(torch.int32)), "out is torch.int32"),
        (lambda c, p, o: (c, p.t().contiguous().t(), o), "contiguous parameters"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    given = noise(2, 2, 8), rows(STEPS[:4]), empty(4, 8, torch.float32)
    crops, parameters, out = change(*given)
    with pytest.raises(ValueError, match=said):
        photometry(crops, parameters, out=out)


def test_the_columns_have_the_kernels_order():
    columns = [getattr(fused, name.removeprefix("blur_").upper()).value for name in PARAMETERS]
    assert columns == list(range(fused.P.value))
