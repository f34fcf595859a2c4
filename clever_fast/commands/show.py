"""`clever-fast show`: pictures of what an encoder sees."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import EncoderSource, TrainedEncoder
from clever_fast.errors import UserError
from clever_fast.models.dense import patch
from clever_fast.options import Execution
from clever_fast.pipelines.manifest import open_manifest
from clever_fast.pipelines.reading import open_file
from clever_fast.show.images import Picture, pictures, read, spread

Device = Literal["auto", "cuda", "cpu"]
Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class Looking(EncoderSource):
    """An encoder, and the images it is shown.

    Args:
        data: folder of images to draw some of, from each class in turn.
        image: a file to draw instead.
        images: how many images of --data.
        size: pixels of the shorter side at which images are seen; by default their own, but at least what the encoder
            was trained on and at most 480.
        split: of --data, where it has train/ and val/ or test/.
        device: where to compute.
    """

    data: Path | None = None
    image: Path | None = None
    images: int = 6
    size: int | None = None
    split: Split = "val"
    device: Device = "auto"


def attention(looking: Looking, *, out: Path = Path("attention.png")) -> None:
    """Draw what the class token of a ViT attends to in its last block: each head, and their mean.

    Args:
        out: picture to write.
    """
    from clever_fast.show.attention import attention_sheet

    found, accelerator = looking.load(), _accelerator(looking.device)
    _save(attention_sheet(found.network, _pictures(found, looking), accelerator, found.origin), out)


def pca(looking: Looking, *, out: Path = Path("pca.png")) -> None:
    """Draw the first three principal components of patch features as red, green and blue, for each part.

    Patches are a ViT's tokens, or the places of a ResNet's or VMamba's last stage.

    Args:
        out: picture to write.
    """
    from clever_fast.show.pca import pca_sheet

    found, accelerator = looking.load(), _accelerator(looking.device)
    _save(pca_sheet(found.network, found.parts, _pictures(found, looking), accelerator, found.origin), out)


def neighbours(
    source: EncoderSource,
    *,
    data: Path,
    out: Path = Path("neighbours.png"),
    images: int = 8,
    neighbours: int = 4,
    split: Split = "val",
    classes: Path | None = None,
    device: Device = "auto",
) -> None:
    """Draw images with their nearest neighbours among the training images, by each part of the features.

    Args:
        data: folder with train/ and val/ or test/, or of class folders, where an image is not its own neighbour.
        out: picture to write.
        images: how many queries, from each class in turn.
        neighbours: how many neighbours of each.
        split: where the queries are from.
        classes: file with one class folder a line, for a subset.
        device: where to compute.
    """
    from clever_fast.show.neighbours import neighbours_sheet

    _at_least_one("images", images)
    found, accelerator = source.load(), _accelerator(device)
    bank = open_manifest(data, classes=classes, progress=True)
    query = open_manifest(data, split=split, classes=classes, progress=True)
    if not 1 <= neighbours < len(bank):
        raise UserError(f"--neighbours {neighbours} of {len(bank)} images: give at least 1 and at most {len(bank) - 1}")
    rows = spread(query, images)
    sheet = neighbours_sheet(
        found.network, found.parts, query, rows, bank, found.size, neighbours, accelerator, found.origin
    )
    _save(sheet, out)


def _accelerator(device: Device) -> Accelerator:
    return Accelerator.from_execution(Execution(device=device))


def _pictures(found: TrainedEncoder, looking: Looking) -> list[Picture]:
    if (looking.data is None) == (looking.image is None):
        raise UserError("name what to look at: either --data DIR or --image FILE")
    _at_least_one("images", looking.images)
    if looking.size is not None:
        _at_least_one("size", looking.size)
    options = {"least": found.size, "size": looking.size, "multiple": patch(found.network)}
    if looking.image is not None:
        try:
            with open_file(looking.image) as file:
                data = file.read()
        except OSError as error:
            raise UserError(f"cannot read the image {looking.image}: {error.strerror}") from None
        return [read(data, looking.image.name, **options)]
    return pictures(open_manifest(looking.data, split=looking.split, progress=True), looking.images, **options)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"--{name} {value} is too few: give at least 1")


def _save(sheet: Any, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
    except (OSError, ValueError) as error:  # ValueError: an unknown ending
        raise UserError(f"cannot write {out}: {error}") from None
    print(f"{out}: {sheet.width} x {sheet.height} pixels")
