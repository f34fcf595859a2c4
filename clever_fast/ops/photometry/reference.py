"""Photometry of crops in plain torch, as the equations read."""

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]


def photometry(crops: Tensor, parameters: Tensor, dtype: torch.dtype) -> Tensor:
    """(V*N, 3, S, S), not laid out in any particular way; computed in float64 where dtype is, else in float32."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    p = crops.flatten(0, 1).to(exact)  # (M, S, S, 3)
    b, c, s, hue, grayscale, sigma, solarize = parameters.to(exact)[:, :, None, None, None].unbind(1)
    p = turn_hue(p, hue)
    L = luma(p)
    p = rounded(b * c * (s * p + (1 - s) * L) + b * (1 - c) * L.mean((1, 2, 3), keepdim=True)).clamp(0, 255)
    p = torch.where(grayscale > 0, rounded(luma(p)), p)
    p = torch.where(sigma > 0, rounded(blur(p, sigma.flatten())), p)
    p = torch.where(solarize > 0, torch.minimum(p, 255 - p), p)
    if dtype != torch.uint8:
        p = (p / 255 - p.new_tensor(MEAN)) / p.new_tensor(STD)
    return p.permute(0, 3, 1, 2).to(dtype)


def rounded(x: Tensor) -> Tensor:
    """To the nearest integer, halves up."""
    return torch.floor(x + 0.5)


def luma(p: Tensor) -> Tensor:
    return (p * p.new_tensor(LUMA)).sum(-1, keepdim=True)


def turn_hue(p: Tensor, turns: Tensor) -> Tensor:
    """RGB of the last dimension to HSV, the hue turned, and back; values of any range."""
    V, lowest = p.amax(-1), p.amin(-1)
    C = V - lowest
    R, G, B = p.unbind(-1)
    chroma = C.clamp_min(torch.finfo(p.dtype).tiny)
    H = torch.where(
        V == R, (G - B) / chroma, torch.where(V == G, 2 + (B - R) / chroma, 4 + (R - G) / chroma)
    )  # in sixths of a turn
    k = (p.new_tensor([5.0, 3.0, 1.0]) + (H[..., None] + 6 * turns)) % 6
    return V[..., None] - C[..., None] * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(p: Tensor, sigma: Tensor) -> Tensor:
    """p: (M, S, S, 3); sigma: (M,), 0 leaves the crop as it is. Two products with the matrices of the filter."""
    matrices = torch.stack([blur_matrix(float(s), p.shape[1]) for s in sigma]).to(p)
    return torch.einsum("myi,mijc,mxj->myxc", matrices, p, matrices)


def blur_matrix(sigma: float, size: int) -> Tensor:
    """(size, size) float64: row x holds the weights of the pixels that pixel x of a blurred row is made of."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    radius = min(blur_radius(sigma), size - 1)
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (taps / sigma) ** 2) if radius else torch.ones(1, dtype=torch.float64)
    for x in range(size):
        places = (x + torch.arange(-radius, radius + 1)).abs()
        mirrored = torch.minimum(places, 2 * (size - 1) - places)
        matrix[x].index_add_(0, mirrored, weights / weights.sum())
    return matrix


def blur_radius(sigma: float) -> int:
    return int(-(-3 * sigma // 1))
