"""The fast bilateral solver: a coarse mask made to follow the edges of its image."""

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
SMOOTHNESS, CONFIDENCE = 256, 0.999
STEPS, TOLERANCE, LEAST = 25, 1e-5, 1e-5  # of the conjugate gradients; the smallest entry of its preconditioner


def bilateral_solver(
    image: np.ndarray, mask: np.ndarray, *, spatial: float = 16, luma: float = 16, chroma: float = 8
) -> np.ndarray:
    """The (H, W) float64 map near `mask` that varies little between pixels of like place and colour.

    Args:
        image: (H, W, 3) uint8, RGB.
        mask: (H, W), 0 to 1.
        spatial, luma, chroma: sides of the cells of the grid over place, brightness and colour, as in TokenCut.

    Minimises SMOOTHNESS / 2 * sum_ij w_ij (x_i - x_j)^2 + CONFIDENCE * sum_i (x_i - mask_i)^2 with one value for all
    pixels of a cell and w made bistochastic, by conjugate gradients.

    Source: Barron and Poole 2016; github.com/YangtaoWANG95/TokenCut, bilateral_solver.py.
    """
    cell, neighbours = _grid(image, spatial, luma, chroma)
    dimensions, cells = len(neighbours) // 2, neighbours.shape[1]

    def splat(x: np.ndarray) -> np.ndarray:
        return np.bincount(cell, weights=x, minlength=cells)

    def blur(x: np.ndarray) -> np.ndarray:  # [1 2 1] along every dimension
        return 2 * dimensions * x + np.append(x, 0.0)[neighbours].sum(0)

    mass, n = splat(np.ones(cell.size)), np.ones(cells)
    data = CONFIDENCE * mass
    for _ in range(10):
        n = np.sqrt(n * mass / blur(n))
    mass = n * blur(n)  # so that the rows sum to 1 however many rounds were made
    wanted = splat(CONFIDENCE * mask.ravel().astype(np.float64))
    diagonal = SMOOTHNESS * (mass - 2 * dimensions * n**2) + data
    system = LinearOperator((cells, cells), lambda x: SMOOTHNESS * (mass * x - n * blur(n * x)) + data * x)
    preconditioner = LinearOperator((cells, cells), lambda x: x / np.maximum(diagonal, LEAST))
    solved, _ = cg(system, wanted, x0=wanted / data, rtol=TOLERANCE, maxiter=STEPS, M=preconditioner)
    return solved[cell].reshape(mask.shape)


def _grid(image: np.ndarray, spatial: float, luma: float, chroma: float) -> tuple[np.ndarray, np.ndarray]:
    """The cell (H * W,) of each pixel among those that hold any, and the cells (10, cells) below and above each in
    every dimension, `cells` where there is none."""
    yuv = image.astype(np.float64) @ YUV.T + [0, 128, 128]
    y, x = np.indices(image.shape[:2])
    places = (x / spatial, y / spatial, yuv[..., 0] / luma, yuv[..., 1] / chroma, yuv[..., 2] / chroma)
    places = [place.astype(np.int64) + 1 for place in places]
    strides = np.cumprod([1, *(place.max() + 2 for place in places[:-1])])  # room for a cell's neighbours
    key = sum(place.ravel() * stride for place, stride in zip(places, strides))
    keys, cell = np.unique(key, return_inverse=True)
    around = np.concatenate([keys + stride * side for stride in strides for side in (-1, 1)]).reshape(-1, len(keys))
    found = np.searchsorted(keys, around).clip(max=len(keys) - 1)
    return cell, np.where(keys[found] == around, found, len(keys))
