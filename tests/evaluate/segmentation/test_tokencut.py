"""The cut against a dense solver of the generalised problem, on graphs whose cut is known; the bilateral solver."""

import numpy as np
import pytest
import torch

from clever_fast.evaluate.segmentation.bilateral import _grid, bilateral_solver
from clever_fast.evaluate.segmentation.tokencut import FAINT, bipartition, graph, second_eigenvector, tokencut


def dense(weights):
    """The eigenvector of the second smallest eigenvalue of (D - W) x = lambda D x by Cholesky factors of D."""
    degree = weights.sum(1)
    factor = torch.linalg.cholesky(torch.diag(degree))
    inverse = torch.linalg.inv(factor)
    values, vectors = torch.linalg.eigh(inverse @ (torch.diag(degree) - weights) @ inverse.T)
    return values[1], inverse.T @ vectors[:, 1]


def scene(noise: float, h: int = 13, w: int = 17, D: int = 24, seed: int = 0):
    """Features (1, D, h, w) of an object on a ground, and where the object is."""
    generator = torch.Generator().manual_seed(seed)
    object_, ground = torch.randn(2, D, generator=generator)
    where = torch.zeros(h, w, dtype=torch.bool)
    where[4:10, 5:12] = True
    features = torch.where(where, object_[:, None, None], ground[:, None, None])
    return (features + noise * torch.randn(D, h, w, generator=generator))[None], where.numpy()


@pytest.mark.parametrize("noise", [0.1, 0.6, 1.2, 2.0, 4.0])
def test_the_eigenvector_is_that_of_a_dense_solver(noise):
    weights = torch.cat([graph(scene(noise, seed=seed)[0]) for seed in range(3)])
    for found, W in zip(second_eigenvector(weights), weights, strict=True):
        value, wanted = dense(W)
        cosine = torch.nn.functional.cosine_similarity(found, wanted, dim=0)
        degree = W.sum(1)
        residual = degree * found - W @ found - value * degree * found
        assert residual.norm() < 1e-6 * (degree * found).norm()
        assert abs(cosine) > 1 - 1e-9


def test_positions_like_no_other_do_not_mislead_the_solver():
    """Eigenvalues that all but coincide: the vector found still is of the second smallest one."""
    n, alone = 120, 6
    weights = torch.full((1, n, n), FAINT, dtype=torch.float64)
    weights[:, alone:, alone:] = 1
    weights[:, range(n), range(n)] = 1
    value, _ = dense(weights[0])
    found = second_eigenvector(weights)[0]
    degree = weights[0].sum(1)
    assert (degree * found - weights[0] @ found - value * degree * found).norm() < 1e-8
    assert (found[alone:].std() < 1e-6).item()


def test_the_graph_is_binary_and_symmetric():
    weights = graph(scene(1.0)[0])
    assert weights.dtype == torch.float64
    assert torch.equal(weights, weights.mT)
    assert set(weights.unique().tolist()) == {FAINT, 1.0}
    assert (weights[0].diagonal() == 1).all()


def test_perfect_features_are_cut_exactly_and_random_ones_are_not():
    features, where = scene(0.0)
    (cut,) = tokencut(features)
    assert (cut.mask == where).all()
    assert cut.eigenvector[where].min() > cut.eigenvector[~where].max()
    noise = torch.randn(4, 64, 13, 17, generator=torch.Generator().manual_seed(0))
    for cut in tokencut(noise):
        overlap = (cut.mask & where).sum() / (cut.mask | where).sum()
        assert overlap < 0.35  # the object covers 19 % of the image


def test_the_object_is_the_connected_side_of_the_largest_value():
    vector = np.full((6, 8), 0.1)
    vector[1:3, 1:3], vector[4, 6] = -0.9, -0.5  # another part of the same side
    cut = bipartition(vector)
    wanted = np.zeros((6, 8), bool)
    wanted[1:3, 1:3] = True
    assert (cut.mask == wanted).all()
    assert cut.eigenvector[1, 1] == 0.9


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (1, 1), (1, 7)])
def test_the_smallest_maps_and_constant_features(shape):
    (cut,) = tokencut(torch.ones(1, 4, *shape))
    assert cut.mask.shape == shape
    assert np.isfinite(cut.eigenvector).all()
    assert cut.mask.any()


def exact_solution(image, mask, smoothness=256, confidence=0.999):
    """The bilateral solver's linear system as a dense matrix over cells, solved directly."""
    cell, neighbours = _grid(image, 16, 16, 8)
    cells = neighbours.shape[1]
    blur = np.eye(cells) * len(neighbours)
    for row in neighbours:
        inside = row < cells
        blur[np.arange(cells)[inside], row[inside]] += 1
    mass = np.bincount(cell, minlength=cells).astype(float)
    data, n = np.diag(confidence * mass), np.ones(cells)
    for _ in range(10):
        n = np.sqrt(n * mass / (blur @ n))
    smooth = np.diag(n * (blur @ n)) - n[:, None] * blur * n
    wanted = np.bincount(cell, weights=confidence * mask.ravel(), minlength=cells)
    return np.linalg.solve(smoothness * smooth + data, wanted)[cell].reshape(mask.shape)


def test_the_bilateral_solver_follows_the_image_s_edges():
    rng = np.random.default_rng(0)
    image, truth = np.full((60, 84, 3), (40, 60, 90), np.uint8), np.zeros((60, 84))
    image[17:45, 23:61], truth[17:45, 23:61] = (200, 150, 80), 1
    image = (image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)
    coarse = np.zeros((60, 84))
    coarse[16:48, 16:64] = 1  # the object in patches of 16
    found = bilateral_solver(image, coarse)
    assert ((coarse > 0.5) == truth.astype(bool)).mean() < 0.92
    assert ((found > 0.5) == truth.astype(bool)).mean() > 0.99
    np.testing.assert_allclose(found, exact_solution(image, coarse), atol=2e-3)
    np.testing.assert_allclose(bilateral_solver(image, np.ones((60, 84))), 1, atol=1e-9)
