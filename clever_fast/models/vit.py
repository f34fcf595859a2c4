"""Vision transformers from timm: features are the class token after the final norm."""

from functools import partial

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from clever_fast.models.backbone import Backbone


def vit(
    dim: int, depth: int, heads: int, drop_path: float = 0.0, *, patch_size: int = 16, image_size: int = 224
) -> nn.Module:
    """timm's ViT without a classifier; position embeddings are interpolated to other image sizes (bicubic)."""
    return VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        drop_path_rate=drop_path,
        dynamic_img_size=True,
    )


VITS = (
    Backbone("vit_tiny_patch16_224", partial(vit, 192, 12, 3), "ViT-T/16", in_timm=True, drop_path=0.1),
    Backbone("vit_small_patch16_224", partial(vit, 384, 12, 6), "ViT-S/16", in_timm=True, drop_path=0.1),
    Backbone("vit_base_patch16_224", partial(vit, 768, 12, 12), "ViT-B/16", in_timm=True, drop_path=0.1),
    Backbone("vit_small_patch8_224", partial(vit, 384, 12, 6, patch_size=8), "ViT-S/8", in_timm=True, drop_path=0.1),
    Backbone("vit_base_patch8_224", partial(vit, 768, 12, 12, patch_size=8), "ViT-B/8", in_timm=True, drop_path=0.1),
    # for tests, and for pretraining within minutes on a CPU
    Backbone("vit_mini_patch8", partial(vit, 96, 4, 3, patch_size=8, image_size=64), "small ViT"),
)
