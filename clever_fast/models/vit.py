"""Vision transformers from timm: features are the class token after the final norm."""

from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from clever_fast.models.backbone import Backbone


class ViT(VisionTransformer):
    """timm's ViT with DINO's initial class token, and with position embeddings resized to other grids as DINO does.

    antialiased_positions: resize them as timm does instead, antialiased. At 96 px a random ViT-T's gradients then
    differ by 2 %.
    """

    def __init__(self, *, antialiased_positions: bool = False, **settings):
        super().__init__(dynamic_img_size=True, **settings)
        self.antialiased_positions = antialiased_positions
        nn.init.trunc_normal_(self.cls_token, std=0.02)  # timm: 1e-6

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Patches (N, h, w, D) -> tokens (N, 1 + h w, D), positions added. timm calls it in every forward pass."""
        if self.antialiased_positions:
            return super()._pos_embed(x)
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], dim=1)
        return self.pos_drop(tokens + resize_positions(self.pos_embed, (x.shape[1], x.shape[2])))


def resize_positions(embedding: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1, 1 + n n, D) of n x n patches, resized to (1, 1 + h w, D) for a grid of h x w patches.

    Bicubic (a = -0.75) without antialiasing, the border repeated: row y of the new grid lies at
    (y + 0.5) n / (h + 0.1) - 0.5 of the old one. The 0.1 is part of the released rule and moves every row but a few
    by some hundredths of a patch. The class token's embedding, the first, stays.

    Source: `interpolate_pos_encoding` of DINO's and CLeVER's released code.
    """
    side = round((embedding.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return embedding
    token, patches = embedding[:, :1], embedding[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    factors = [(length + 0.1) / side for length in grid]
    resized = F.interpolate(patches, scale_factor=factors, mode="bicubic")
    return torch.cat([token, resized.flatten(2).mT], dim=1)


def antialias_positions(module: nn.Module) -> nn.Module:
    """The module with every ViT in it resizing its position embeddings as timm does."""
    for child in module.modules():
        if isinstance(child, ViT):
            child.antialiased_positions = True
    return module


def vit(
    dim: int, depth: int, heads: int, drop_path: float = 0.0, *, patch_size: int = 16, image_size: int = 224
) -> nn.Module:
    """A ViT without a classifier for images of any size; its position embeddings are those of `image_size`."""
    return ViT(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        drop_path_rate=drop_path,
    )


VITS = (
    Backbone("vit_tiny_patch16_224", partial(vit, 192, 12, 3), "ViT-T/16", in_timm=True, drop_path=0.1, patch=16),
    Backbone("vit_small_patch16_224", partial(vit, 384, 12, 6), "ViT-S/16", in_timm=True, drop_path=0.1, patch=16),
    Backbone("vit_base_patch16_224", partial(vit, 768, 12, 12), "ViT-B/16", in_timm=True, drop_path=0.1, patch=16),
    Backbone(
        "vit_small_patch8_224", partial(vit, 384, 12, 6, patch_size=8), "ViT-S/8", in_timm=True, drop_path=0.1, patch=8
    ),
    Backbone(
        "vit_base_patch8_224", partial(vit, 768, 12, 12, patch_size=8), "ViT-B/8", in_timm=True, drop_path=0.1, patch=8
    ),
    # for tests, and for pretraining within minutes on a CPU
    Backbone("vit_mini_patch8", partial(vit, 96, 4, 3, patch_size=8, image_size=64), "small ViT", patch=8),
)
