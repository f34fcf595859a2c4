"""Deformation of crops in plain torch: two images one after the other, as the equations read."""

import torch
from torch import Tensor


def deformation(crops: Tensor, parameters: Tensor, field: Tensor | None, gain: Tensor | None) -> Tensor:
    V, N, S = crops.shape[:3]
    pixel = torch.arange(S, dtype=torch.float32, device=crops.device)
    y, x = (axis.expand(V * N, S, S) for axis in torch.meshgrid(pixel, pixel, indexing="ij"))
    parameters = parameters[:, :, None, None]
    xx, xy, yx, yy, first_y, first_x, step_y, step_x, scale_y, scale_x = parameters.unbind(1)

    c = (S - 1) / 2
    turned_x, turned_y = c + xx * (x - c) + xy * (y - c), c + yx * (x - c) + yy * (y - c)
    turned = at(crops.flatten(0, 1), torch.floor(turned_y + 0.5), torch.floor(turned_x + 0.5))
    if field is None:
        return turned.view(V, N, S, S, 3)

    rows, columns = (first_y + step_y * y).long(), (first_x + step_x * x).long()
    both = gain[:, None] * gain
    moved_x, moved_y = x + scale_x * both * field[0, rows, columns], y + scale_y * both * field[1, rows, columns]
    left, top = torch.floor(moved_x), torch.floor(moved_y)
    right_share, lower_share = (moved_x - left)[..., None], (moved_y - top)[..., None]
    upper = at(turned, top, left) * (1 - right_share) + at(turned, top, left + 1) * right_share
    lower = at(turned, top + 1, left) * (1 - right_share) + at(turned, top + 1, left + 1) * right_share
    moved = torch.floor(upper * (1 - lower_share) + lower * lower_share + 0.5).to(torch.uint8)
    return moved.view(V, N, S, S, 3)


def at(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The pixels (M, S, S, 3) of images (M, S, S, 3) at whole places y and x (M, S, S); black outside."""
    S = images.shape[1]
    inside = (x >= 0) & (x < S) & (y >= 0) & (y < S)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    found = images[image, y.clamp(0, S - 1).long(), x.clamp(0, S - 1).long()]
    return torch.where(inside[..., None], found, 0)
