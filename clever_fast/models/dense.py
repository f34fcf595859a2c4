"""A feature for each position of an image: what segmentation reads."""

from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clever_fast.models.vmamba import VMamba


def dense_features(encoder: nn.Module, images: Tensor, *, keys: bool = False) -> Tensor:
    """Images (N, 3, H, W) -> features (N, D, h, w).

    Of a ViT the patch tokens of the last block after the final norm, or the keys of the last block before its heads
    are split; of a ResNet or VMamba the map of the last stage, which has no keys.
    """
    if isinstance(encoder, VisionTransformer):
        return _vit(encoder, images, keys)
    assert not keys, f"{type(encoder).__name__} has no keys"
    if isinstance(encoder, ResNet):
        return encoder.forward_features(images)
    assert isinstance(encoder, VMamba)
    x = encoder.patch_embed(images.permute(0, 2, 3, 1))
    for layer in encoder.layers:
        x = layer(x)
    return encoder.classifier.norm(x).permute(0, 3, 1, 2)


def _vit(encoder: VisionTransformer, images: Tensor, keys: bool) -> Tensor:
    h, w = encoder.patch_embed.dynamic_feat_size(images.shape[-2:])
    x = encoder.norm_pre(encoder._pos_embed(encoder.patch_embed(images)))
    if keys:
        last = encoder.blocks[-1]
        for block in encoder.blocks[:-1]:
            x = block(x)
        x = last.attn.qkv(last.norm1(x)).chunk(3, dim=-1)[1]
    else:
        x = encoder.norm(encoder.blocks(x))
    return x[:, encoder.num_prefix_tokens :].transpose(1, 2).unflatten(2, (h, w))
