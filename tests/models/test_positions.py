"""A ViT's position embeddings at other image sizes: the released rule, against its definition in float64."""

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed

from clever_fast.models import BACKBONES
from clever_fast.models.vit import antialias_positions, resize_positions, vit

SIZE = 96  # of a local crop: 6 x 6 patches of 16 px


def weights(length: int, side: int) -> np.ndarray:
    """(length, side) float64: what each of `side` old rows gives to each of `length` new ones.

    New row y lies at (y + 0.5) side / (length + 0.1) - 0.5 among the old ones. Four of them count, by Keys' cubic with
    a = -0.75, and the first and the last stand for those beyond.
    """
    made = np.zeros((length, side))
    for y in range(length):
        place = (y + 0.5) * side / (length + 0.1) - 0.5
        for row in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            x = abs(place - row)
            near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            made[y, min(max(row, 0), side - 1)] += near if x < 1 else far
    return made


def golden(embedding: torch.Tensor, height: int, width: int) -> torch.Tensor:
    side = round((embedding.shape[1] - 1) ** 0.5)
    grid = embedding[0, 1:].detach().double().numpy().reshape(side, side, -1)
    resized = np.einsum("yh,xw,hwd->yxd", weights(height, side), weights(width, side), grid)
    return torch.cat([embedding[:, :1].double(), torch.from_numpy(resized).flatten(0, 1)[None]], dim=1)


@pytest.mark.parametrize("grid", [(6, 6), (12, 12), (30, 52), (14, 15), (1, 3), (28, 28)])
def test_embeddings_are_resized_by_the_released_rule(grid):
    torch.manual_seed(0)
    embedding = torch.randn(1, 1 + 14 * 14, 5)
    torch.testing.assert_close(resize_positions(embedding, grid).double(), golden(embedding, *grid), rtol=0, atol=1e-5)


def test_the_grid_they_were_trained_on_changes_nothing():
    embedding = torch.randn(1, 1 + 14 * 14, 5)
    assert resize_positions(embedding, (14, 14)) is embedding


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return BACKBONES["vit_tiny_patch16_224"].build(0.0).eval()


def at_its_own_size(network: torch.nn.Module, size: int, positions: torch.Tensor) -> torch.nn.Module:
    """The same weights in a ViT of images of `size`, whose embeddings `positions` are."""
    other = vit(192, 12, 3, image_size=size).eval()
    other.load_state_dict(network.state_dict() | {"pos_embed": positions.float()})
    return other


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def test_a_vit_sees_local_crops_as_the_released_one(tiny):
    released = at_its_own_size(tiny, SIZE, golden(tiny.pos_embed, 6, 6))
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert relative(tiny(images), released(images)) < 1e-5
        last_of_channels = tiny(images.contiguous(memory_format=torch.channels_last))
        assert relative(last_of_channels, released(images)) < 1e-5


def test_timm_s_rule_is_another_and_is_kept_for_runs_that_began_with_it(tiny):
    """And it is the one of timm: a test that the option does something, and what."""
    other = at_its_own_size(tiny, SIZE, resample_abs_pos_embed(tiny.pos_embed.detach(), new_size=[6, 6]))
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert relative(tiny(images), other(images)) > 1e-3
        former = vit(192, 12, 3).eval()
        former.load_state_dict(tiny.state_dict())
        assert relative(antialias_positions(former)(images), other(images)) < 1e-5


def test_the_gradient_reaches_the_embeddings_through_the_rule():
    torch.manual_seed(0)
    embedding = torch.randn(1, 1 + 8 * 8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: resize_positions(e, (3, 4)), embedding)


@pytest.mark.parametrize("size", [32, 48])
def test_compiled_whole_it_is_the_same(size):
    torch.manual_seed(0)
    network = vit(24, 2, 2, patch_size=8, image_size=32)
    images = torch.randn(2, 3, size, size)
    expected = torch.autograd.grad(network(images).sin().sum(), list(network.parameters()))
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="aot_eager")
    found = torch.autograd.grad(compiled(images).sin().sum(), list(network.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_class_token_starts_as_dino_s():
    """Truncated normal with a standard deviation of 0.02, where timm's is 1e-6."""
    torch.manual_seed(0)
    tokens = torch.cat([vit(192, 1, 3).cls_token.flatten() for _ in range(20)])
    assert tokens.std().item() == pytest.approx(0.02, rel=0.05)
