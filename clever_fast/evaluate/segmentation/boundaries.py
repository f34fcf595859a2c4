"""The measures of DAVIS: region similarity J, boundary accuracy F, and their statistics over a clip."""

from typing import NamedTuple

import cv2
import numpy as np

TOLERANCE = 0.008  # of a boundary, as a share of the picture's diagonal


class Statistics(NamedTuple):
    """Of one measure over the frames of an object."""

    mean: float
    recall: float  # share of the frames above 0.5
    decay: float  # mean of the first quarter less mean of the last


def region_similarity(truth: np.ndarray, mask: np.ndarray) -> float:
    """J: intersection over union of two (H, W) bool masks; 1 where both are empty."""
    union = np.count_nonzero(truth | mask)
    return np.count_nonzero(truth & mask) / union if union else 1.0


def boundary_accuracy(truth: np.ndarray, mask: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """F: harmonic mean of the precision and recall of the boundary of `mask`, both (H, W) bool.

    A boundary pixel is right if one of the other boundary lies within `tolerance` of the diagonal, rounded up to
    whole pixels.

    Source: Perazzi et al. 2016; github.com/davisvideochallenge/davis2017-evaluation.
    """
    radius = int(np.ceil(tolerance * np.hypot(*truth.shape)))
    found, wanted = boundary(mask), boundary(truth)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    box = cv2.boundingRect(found | wanted)  # nothing outside it can match
    inside = slice(box[1], box[1] + box[3]), slice(box[0], box[0] + box[2])
    found, wanted = found[inside], wanted[inside]
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    precision = np.count_nonzero(found & cv2.dilate(wanted, disk)) / np.count_nonzero(found)
    recall = np.count_nonzero(wanted & cv2.dilate(found, disk)) / np.count_nonzero(wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8, 1 where a pixel differs from the one to its right, below it, or below and to its right."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, both = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return ((mask != right) | (mask != below) | (mask != both)).astype(np.uint8)


def statistics(values: np.ndarray) -> Statistics:
    """Of one measure in each frame. The quarters share the frame at which they meet, as in the official code."""
    values = np.asarray(values, dtype=np.float64)
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[ends[0] : ends[1] + 1], values[ends[3] : ends[4] + 1]
    return Statistics(float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean()))
