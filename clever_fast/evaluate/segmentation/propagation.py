"""Labels carried from frame to frame by the likeness of features, the protocol of DINO on DAVIS."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from clever_fast.fields import ABOVE_ZERO, COUNT, NOT_NEGATIVE, validate

TILE = 13  # side, in positions, of the tiles that share one matrix product; 10 to 18 are alike, and 52 is 4 of it


@dataclass(frozen=True)
class Propagation:
    """DINO's settings.

    Args:
        previous: frames before a frame that it takes labels from, beside the first one.
        radius: how far a position may lie from its neighbours, in rows and in columns of the feature map.
        neighbours: the most similar ones, over all those frames together, that vote.
        temperature: of a vote's weight, exp(cosine similarity / temperature).

    Raises:
        UserError: previous or radius is below 0, neighbours below 1, or the temperature not above 0.
    """

    previous: int = 7
    radius: int = 12
    neighbours: int = 5
    temperature: float = 0.1

    def __post_init__(self):
        bounds = {"previous": NOT_NEGATIVE, "radius": NOT_NEGATIVE, "neighbours": COUNT, "temperature": ABOVE_ZERO}
        validate(self, "", bounds)


@torch.no_grad()
def propagate(features: Iterable[Tensor], labels: Tensor, settings: Propagation) -> Iterator[Tensor]:
    """Soft labels (C, h, w) of every frame, those of the first one as they were given.

    A position takes the weighted mean of its neighbours' labels in the first frame and the previous ones. Those as
    similar as the last of the chosen neighbours vote too, as in the released code.

    Args:
        features: of each frame in turn, (D, h, w) float32; only 1 + previous of them are kept.
        labels: (C, h, w) float32, of the first frame.

    Memory is (1 + previous) * h * w * (D + C) and, at a time, TILE^2 * (1 + previous) * (TILE + 2 * radius)^2.

    Source: DINO (Caron et al. 2021), eval_video_segmentation.py.
    """
    frames = iter(features)
    first = _unit(next(frames))
    kept = 1 + settings.previous
    keys, values = first.new_empty(kept, *first.shape), labels.new_empty(kept, *first.shape[:2], len(labels))
    keys[0], values[0] = first, labels.movedim(0, -1)
    tiles = list(_tiles(*first.shape[:2], settings.radius, first.device))
    yield labels
    for count, feature in enumerate(frames, start=1):
        query, known = _unit(feature), min(count, kept)
        found = values.new_empty(values.shape[1:])
        for tile in tiles:
            q = query[tile.rows, tile.columns]
            k, v = keys[:known, tile.near_rows, tile.near_columns], values[:known, tile.near_rows, tile.near_columns]
            mean = _vote(q.flatten(0, 1), k.flatten(1, 2), v.flatten(1, 2), tile.far, settings)
            found[tile.rows, tile.columns] = mean.unflatten(0, q.shape[:2])
        if settings.previous:
            slot = 1 + (count - 1) % settings.previous  # the oldest one's; the order does not matter
            keys[slot], values[slot] = query, found
        yield found.movedim(-1, 0)


def _unit(feature: Tensor) -> Tensor:
    return F.normalize(feature.movedim(0, -1).float(), dim=-1)


@dataclass(frozen=True)
class _Tile:
    """A rectangle of positions and the one that holds all their neighbours."""

    rows: slice
    columns: slice
    near_rows: slice
    near_columns: slice
    far: Tensor  # (positions, near positions) bool: not neighbours after all


def _tiles(h: int, w: int, radius: int, device: torch.device) -> Iterator[_Tile]:
    for top in range(0, h, TILE):
        for left in range(0, w, TILE):
            rows, near_rows, far_y = _span(top, h, radius, device)
            columns, near_columns, far_x = _span(left, w, radius, device)
            far = far_y[:, None, :, None] | far_x[None, :, None, :]
            yield _Tile(rows, columns, near_rows, near_columns, far.flatten(2).flatten(0, 1))


def _span(begin: int, length: int, radius: int, device: torch.device) -> tuple[slice, slice, Tensor]:
    """Along one side: a tile, its neighbourhood, and (tile, neighbourhood) bool of the pairs farther than radius."""
    end = min(begin + TILE, length)
    near = slice(max(0, begin - radius), min(length, end + radius))
    distance = torch.arange(begin, end, device=device)[:, None] - torch.arange(near.start, near.stop, device=device)
    return slice(begin, end), near, distance.abs() > radius


def _vote(query: Tensor, keys: Tensor, values: Tensor, far: Tensor, settings: Propagation) -> Tensor:
    """query (P, D), keys (n, K, D), values (n, K, C), far (P, K) -> (P, C)."""
    similarity = query @ keys.flatten(0, 1).T
    similarity.view(len(query), len(keys), -1).masked_fill_(far[:, None], -torch.inf)
    k, values = min(settings.neighbours, similarity.shape[1]), values.flatten(0, 1)
    nearest, index = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)
    least = nearest[:, k - 1, None]
    if (nearest[:, k:] < least).all():
        weight = (nearest[:, :k] / settings.temperature).softmax(1)
        return torch.einsum("pk,pkc->pc", weight, values[index[:, :k]])
    weight = (similarity.masked_fill_(similarity < least, -torch.inf) / settings.temperature).softmax(1)
    return weight @ values
