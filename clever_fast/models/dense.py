"""Features of places in an image, for every backbone, and what a ViT attends to."""

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clever_fast.errors import UserError


def dense_features(encoder: nn.Module, images: Tensor, *, keys: bool = False) -> Tensor:
    """Images (N, 3, H, W) of any size -> features (N, D, h, w) of their places.

    ViT: the patch tokens of the last block after the final norm, or its keys, all heads one after the other;
    h = H // patch, w = W // patch, and what is left over at the bottom and at the right is not seen.
    ResNet and VMamba: the last stage (VMamba: after the final norm), whose mean over places is the feature vector;
    h = H / stride, w = W / stride, rounded up (stride 32, and 8 or 16 for the small networks).

    Raises:
        UserError: the keys of a network that has none, or an image smaller than a patch.
    """
    if isinstance(encoder, VisionTransformer):
        images = whole_patches(encoder, images)
        if keys:
            k = _last_qkv(encoder, images)[1][:, :, 1:]
            return k.transpose(2, 3).flatten(1, 2).unflatten(2, _grid(encoder, images))
        return encoder.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[0]
    if keys:
        raise UserError(f"a {type(encoder).__name__} has no attention, so no keys: use a ViT, or its features")
    if not hasattr(encoder, "forward_features"):
        raise UserError(f"a {type(encoder).__name__} has no forward_features, so no features of places in an image")
    return encoder.forward_features(images)


def class_attention(encoder: nn.Module, images: Tensor) -> Tensor:
    """Images (N, 3, H, W) -> the class token's attention to each patch in the last block, (N, heads, h, w) float32.

    After the softmax over all tokens, so over h and w it sums to 1 less the attention to the class token itself.

    Raises:
        UserError: the network is no ViT, or an image is smaller than a patch.
    """
    if not isinstance(encoder, VisionTransformer):
        raise UserError(f"a {type(encoder).__name__} has no attention: use a ViT")
    images = whole_patches(encoder, images)
    q, k, _ = _last_qkv(encoder, images).float()
    logits = encoder.blocks[-1].attn.scale * (q[:, :, :1] * k).sum(-1)  # (N, heads, 1 + h w); autocast rounds products
    return logits.softmax(-1)[..., 1:].unflatten(2, _grid(encoder, images))


def patch(encoder: nn.Module) -> int:
    """Pixels of a side of a ViT's patches; 1 for the others, which take any size."""
    return encoder.patch_embed.patch_size[0] if isinstance(encoder, VisionTransformer) else 1


def whole_patches(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """The upper left part of (N, 3, H, W) images that a ViT's patches fill."""
    h, w = _grid(encoder, images)
    if not h * w:
        size = " x ".join(map(str, images.shape[2:]))
        raise UserError(f"an image of {size} pixels is smaller than a patch of {patch(encoder)}")
    return images[..., : h * patch(encoder), : w * patch(encoder)]


def _grid(encoder: VisionTransformer, images: Tensor) -> tuple[int, int]:
    H, W = images.shape[2:]
    return H // patch(encoder), W // patch(encoder)


def _last_qkv(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """Queries, keys and values of the last block, (3, N, heads, tokens, D / heads)."""
    seen = []
    attention = encoder.blocks[-1].attn
    hook = attention.qkv.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        encoder(images)
    finally:
        hook.remove()
    return seen[0].unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
