"""TokenCut: the salient object as one side of a normalised cut through the graph of an image's positions."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

THRESHOLD, FAINT = 0.2, 1e-5  # cosine similarity above which an edge weighs 1, and the weight of all others
STEPS, CHECKED, TOLERANCE = 96, 16, 1e-7  # of Lanczos: at most, between two looks, sine of the angle that is left


class Cut(NamedTuple):
    """Of one image."""

    eigenvector: np.ndarray  # (h, w) float64, positive on the object
    mask: np.ndarray  # (h, w) bool: the object


@torch.no_grad()
def tokencut(features: Tensor) -> list[Cut]:
    """Cut each image's feature map (N, D, h, w) in two.

    The edges of the graph weigh 1 where the cosine similarity is above 0.2 and 1e-5 elsewhere. The second smallest
    generalised eigenvector of (D - W) x = lambda D x is cut at its mean; the object is on the side of its largest
    absolute value, and is the connected part that holds it.

    Source: Wang et al. 2022; github.com/YangtaoWANG95/TokenCut.
    """
    h, w = features.shape[-2:]
    vectors = second_eigenvector(graph(features)).unflatten(1, (h, w)).cpu().numpy()
    return [bipartition(vector) for vector in vectors]


def graph(features: Tensor) -> Tensor:
    """Weights (N, h * w, h * w) float64 of features (N, D, h, w)."""
    unit = F.normalize(features.float().flatten(2), dim=1)
    similar = unit.transpose(1, 2) @ unit > THRESHOLD
    return (similar | similar.mT).double().clamp(min=FAINT)


def bipartition(vector: np.ndarray) -> Cut:
    """The object of an eigenvector (h, w)."""
    seed = np.unravel_index(np.abs(vector).argmax(), vector.shape)
    side = vector > vector.mean()
    if not side[seed]:
        vector, side = -vector, ~side
    _, parts = cv2.connectedComponents(side.astype(np.uint8), connectivity=4)
    return Cut(vector, parts == parts[seed])


def second_eigenvector(weights: Tensor) -> Tensor:
    """Of symmetric W (N, n, n) float64: the second smallest eigenvalue's eigenvector (N, n) of (D - W) x = lambda D x.

    It is D^-1/2 times the second largest eigenvector of D^-1/2 W D^-1/2, whose largest is D^1/2 1. Lanczos' method
    finds it within tens of products, and is stopped by a bound of its error; where eigenvalues lie too close, as
    those of positions that are like no other do, all of them are computed.
    """
    if weights.shape[1] == 1:
        return torch.ones_like(weights[:, 0])
    scale = weights.sum(2).rsqrt()
    matrix = weights * scale[:, :, None] * scale[:, None]
    vectors, error = _lanczos(matrix, F.normalize(1 / scale, dim=1))
    for i in (error > TOLERANCE).nonzero()[:, 0].tolist():
        vectors[i] = torch.linalg.eigh(matrix[i])[1][:, -2]
    return vectors * scale


def _lanczos(matrix: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvector (N, n) of matrix (N, n, n) beside `known` (N, n), and a bound of its error (N,).

    Every new vector is made orthogonal to all before it, twice, so no eigenvalue appears again. The bound is the
    residual over the distance to the next eigenvalue (Davis and Kahan), as far as the method has found it.
    """
    N, n = known.shape
    steps = min(STEPS, n - 1)
    generator = torch.Generator().manual_seed(0)
    basis = matrix.new_zeros(N, steps + 2, n)
    basis[:, 0] = known
    projected = matrix.new_zeros(N, steps, steps)
    vector = torch.randn(n, generator=generator, dtype=matrix.dtype).to(matrix.device).expand(N, n)
    norm = _orthogonalise(basis, vector, 1)
    for j in range(1, steps + 1):
        vector = (matrix @ basis[:, j, :, None])[..., 0]
        projected[:, j - 1, j - 1] = (vector * basis[:, j]).sum(1)
        norm = _orthogonalise(basis, vector, j + 1)
        last = j == steps
        if last or j % CHECKED == 0:
            values, small = torch.linalg.eigh(projected[:, :j, :j])
            gap = values[:, -1] - values[:, -2] if j > 1 else torch.ones_like(norm)
            error = norm * small[:, -1, -1].abs() / gap.clamp(min=torch.finfo(gap.dtype).tiny)
            if last or (error <= TOLERANCE).all():
                break
        projected[:, j, j - 1] = projected[:, j - 1, j] = norm
    return (small[:, None, :, -1] @ basis[:, 1 : j + 1])[:, 0], error


def _orthogonalise(basis: Tensor, vector: Tensor, count: int) -> Tensor:
    """Put `vector` (N, n), less its part along the first `count` of basis (N, m, n), next to them; its norm (N,).

    What is left of a vector that lies in their span is rounding, and becomes 0.
    """
    before = basis[:, :count]
    for _ in range(2):
        vector = vector - ((vector[:, None] @ before.mT) @ before)[:, 0]
    norm = vector.norm(dim=1)
    norm = norm * (norm > 1e-12)
    basis[:, count] = vector / norm.where(norm > 0, torch.inf)[:, None]
    return norm
