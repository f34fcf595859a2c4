"""Images with their nearest neighbours: what do the parts of the features find alike?"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from clever_fast.accelerator import Accelerator
from clever_fast.errors import UserError
from clever_fast.evaluate.features import features
from clever_fast.pipelines.contact_sheet import FAINT, INK, Tile, contain, sheet_of
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.reading import read_pixels

CELL = 104  # pixels: a sheet has many images
RIGHT = (20, 120, 60)  # the colour of a class name that is the query's


@torch.no_grad()
def neighbours_sheet(
    encoder: nn.Module,
    parts: dict[str, slice],
    query: Manifest,
    rows: np.ndarray,
    bank: Manifest,
    size: int,
    count: int,
    accelerator: Accelerator,
    origin: str,
) -> Image.Image:
    """Rows of queries; columns: the query, then its `count` nearest images of the bank by each part.

    Under a neighbour stand its class, green where it is the query's, and its cosine similarity. An image is not its own
    neighbour.

    Args:
        query: the data set that holds the queries.
        rows: which of its images.
        bank: where neighbours are looked for; also of the classes.
        size: pixels at which images are encoded.
    """
    encoder = accelerator.place(encoder).eval()
    asked = query.take(rows, f"{query.fingerprint}, {len(rows)} queries")
    found, wanted = (_features(encoder, manifest, size, accelerator) for manifest in (bank, asked))
    same = query.root == bank.root
    tiles = [[_tile(asked, i, None)] for i in range(len(asked))]
    for part in parts.values():
        scores = similarity(wanted[:, part], found[:, part])
        if same:
            scores[torch.arange(len(rows)), torch.from_numpy(rows).to(scores.device)] = -torch.inf
        best = scores.topk(count, dim=1)
        for line, values, places, i in zip(tiles, best.values.tolist(), best.indices.tolist(), range(len(rows))):
            name = asked.classes[asked.labels[i]]
            line += [_tile(bank, j, value, name) for value, j in zip(values, places, strict=True)]
    starts = {1 + i * count: name for i, name in enumerate(parts)}
    return sheet_of(
        tiles,
        title="Nearest neighbours",
        subtitle=f"of {len(rows)} images among {len(bank):,}, by cosine similarity of each part; {origin}",
        columns={0: "query", **starts},
        cell=CELL,
        after=[start - 1 for start in starts],
    )


def similarity(query: Tensor, bank: Tensor) -> Tensor:
    """Cosine similarities (Q, B) of features (Q, D) and (B, D)."""
    return F.normalize(query, dim=1) @ F.normalize(bank, dim=1).T


def _features(encoder: nn.Module, manifest: Manifest, size: int, accelerator: Accelerator) -> Tensor:
    found, _ = features(encoder, manifest, size, accelerator)
    if len(found) != len(manifest):
        raise UserError(f"files of {manifest.root} broke since they were indexed: run `clever-fast index` on it")
    return found


def _tile(manifest: Manifest, row: int, score: float | None, wanted: str | None = None) -> Tile:
    name = manifest.classes[manifest.labels[row]]
    image = contain(Image.fromarray(read_pixels(manifest.read(row), manifest.paths[row])), CELL)
    lines: Sequence[str] = (name[:16],) if score is None else (name[:16], f"{score:.3f}")
    return Tile(image, lines, INK if wanted is None else RIGHT if name == wanted else FAINT)
