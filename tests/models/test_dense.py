"""Features of places: their mean is the feature vector, a ViT's are its tokens, and odd sizes are cut or rounded up."""

import pytest
import torch
from torch.nn import functional as F

from clever_fast.errors import UserError
from clever_fast.models import BACKBONES
from clever_fast.models.dense import class_attention, dense_features, patch
from clever_fast.models.vit import vit


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return vit(24, 2, 3, patch_size=8, image_size=32).eval()


def tokens(encoder, images):
    """The last block's input, and its output after the final norm."""
    x = encoder._pos_embed(encoder.patch_embed(images))
    for block in encoder.blocks[:-1]:
        x = block(x)
    return x, encoder.norm(encoder.blocks[-1](x))


@pytest.mark.parametrize(("name", "stride"), [("resnet10_small", 16), ("resnet18", 32), ("vmamba_mini", 16)])
@pytest.mark.parametrize("size", [(65, 47), (33, 64)])
@torch.no_grad()
def test_the_mean_over_places_is_the_feature_vector(name, stride, size):
    torch.manual_seed(0)
    encoder, x = BACKBONES[name].build(0.0).eval(), torch.randn(2, 3, *size)
    found = dense_features(encoder, x)
    assert found.shape == (2, encoder.embed_dim, *(-(-side // stride) for side in size))
    torch.testing.assert_close(found.mean((2, 3)), encoder(x))
    with pytest.raises(UserError, match="no attention, so no keys"):
        dense_features(encoder, x, keys=True)
    with pytest.raises(UserError, match="has no attention: use a ViT"):
        class_attention(encoder, x)
    assert patch(encoder) == 1


@torch.no_grad()
def test_tokens_keys_and_attention_of_a_vit(encoder):
    x = torch.randn(2, 3, 27, 45)  # 3 x 5 patches, and a rest
    last, normed = tokens(encoder, x[..., :24, :40])
    places = normed[:, 1:].transpose(1, 2).unflatten(2, (3, 5))
    torch.testing.assert_close(dense_features(encoder, x), places)
    torch.testing.assert_close(encoder(x[..., :24, :40]), normed[:, 0])
    block = encoder.blocks[-1]
    q, k, _ = block.attn.qkv(block.norm1(last)).split(24, dim=2)
    torch.testing.assert_close(dense_features(encoder, x, keys=True), k[:, 1:].transpose(1, 2).unflatten(2, (3, 5)))
    heads = []
    for channels in (slice(0, 8), slice(8, 16), slice(16, 24)):
        weights = F.softmax(q[..., channels] @ k[..., channels].transpose(1, 2) / 8**0.5, dim=-1)
        heads.append(weights[:, 0, 1:].unflatten(1, (3, 5)))
    attention = class_attention(encoder, x)
    torch.testing.assert_close(attention, torch.stack(heads, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert class_attention(encoder, x).dtype == torch.float32
    assert not encoder.blocks[-1].attn.qkv._forward_hooks


def test_an_image_smaller_than_a_patch(encoder):
    for function in (dense_features, class_attention):
        with pytest.raises(UserError, match="7 x 40 pixels is smaller than a patch of 8"):
            function(encoder, torch.zeros(1, 3, 7, 40))
