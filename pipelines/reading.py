"""The manifest of a folder of images: what is there, how large it is, what it is labelled, and what cannot be read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Manifest:
    """The readable images of a class folder tree, in a fixed order; a sample's index is its row here."""

    root: Path
    paths: list[str]  # relative to root
    sizes: np.ndarray  # (n, 2) int32: width and height in pixels, after EXIF rotation
    labels: np.ndarray  # (n,) int64: index into classes
    classes: list[str]
    unreadable: dict[str, str]  # path -> reason
    fingerprint: str

    def __len__(self) -> int:
        return len(self.paths)
