"""Ten outlines in the unit disk and their masks."""

import numpy as np
from PIL import Image, ImageDraw

_TURN = np.linspace(0, 2 * np.pi, 72, endpoint=False)
OVERSAMPLING = 3


def _polar(radius, angle=_TURN) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _regular(corners: int, inner: float = 1.0) -> np.ndarray:
    angle = np.arange(2 * corners) * np.pi / corners - np.pi / 2
    return _polar(np.where(np.arange(2 * corners) % 2, inner, 1.0), angle)


def _crescent() -> np.ndarray:
    outer, inner = np.linspace(0.6, 2 * np.pi - 0.6, 40), np.linspace(2 * np.pi - 0.6, 0.6, 40)
    return 0.95 * np.concatenate([_polar(1.0, outer), _polar(1.0, inner) * [0.66, 0.72] + [0.45, 0]])


def _heart() -> np.ndarray:
    cosines = sum(a * np.cos(k * _TURN) for k, a in enumerate((13, -5, -2, -1), start=1))
    return np.stack([16 * np.sin(_TURN) ** 3, -cosines], 1) / 17


_ARM = 0.3
# name -> outline and hole, (n, 2) points
SHAPES: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
    "bar": (np.array([[-1, -_ARM], [1, -_ARM], [1, _ARM], [-1, _ARM]]), None),
    "crescent": (_crescent(), None),
    "cross": (_polar(1.0, (np.arange(4)[:, None] * np.pi / 2 + [-_ARM, _ARM, np.pi / 4]).ravel())
              * np.tile([1.0, 1.0, _ARM * 2**0.5], 4)[:, None], None),
    "disk": (_polar(0.85), None),
    "gear": (_polar(0.72 + 0.24 * (np.sin(9 * _TURN) > 0)), _polar(0.25)),
    "heart": (_heart(), None),
    "ring": (_polar(0.95), _polar(0.5)),
    "square": (0.8 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]), None),
    "star": (_regular(5, 0.42), None),
    "triangle": (_polar(1.0, np.arange(3) * 2 * np.pi / 3 - np.pi / 2), None),
}  # fmt: skip


def mask(shape: tuple[int, int], name: str, centre, radius: float, angle: float, squeeze: float) -> np.ndarray:
    """The (H, W) float32 coverage in [0, 1] of an outline: `centre` (x, y) and `radius` in pixels, `angle` in radians,
    height over width `squeeze`."""
    cos, sin = np.cos(angle), np.sin(angle)
    image = Image.new("L", (shape[1] * OVERSAMPLING, shape[0] * OVERSAMPLING))
    draw = ImageDraw.Draw(image)
    for points, fill in zip(SHAPES[name], (255, 0)):
        if points is not None:
            x, y = points[:, 0], points[:, 1] * squeeze
            turned = np.stack([x * cos - y * sin, x * sin + y * cos], 1) * radius + centre
            draw.polygon((turned * OVERSAMPLING).ravel().tolist(), fill=fill)
    return np.asarray(image.reduce(OVERSAMPLING), np.float32) / 255
