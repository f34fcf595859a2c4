"""What every protocol takes, and what it leaves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console

from clever_fast import distributed
from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import Encoder, load_encoder, with_parts
from clever_fast.environment import conditions
from clever_fast.errors import UserError
from clever_fast.evaluate import labelled, results
from clever_fast.evaluate.results import Results
from clever_fast.pipelines.archives import ARCHIVES, open_archive
from clever_fast.pipelines.manifest import Manifest, open_manifest
from clever_fast.recipe import Execution

FILE_WIDTH = 200  # columns of a table that no terminal shows


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What every protocol takes.

    Args:
        data: folder with train/ and val/ or test/, each of class folders; or where a published archive is unpacked.
        run: folder of a pretraining run.
        weights: a file of weights instead of a run, of this project or another.
        backbone: the network that the weights are of, where they do not tell.
        dataset: how `data` is laid out: class folders, or as the official archives of that data set unpack.
        classes: file with one class folder a line, for a subset.
        parts: of the features, such as [all,IR,EF]; all that there are by default.
        out: folder for the results; the run's by default.
        device: where to compute.
    """

    data: Path
    run: Path | None = None
    weights: Path | None = None
    backbone: str | None = None
    dataset: Literal["folders", "cub200", "flowers102", "food101", "pets"] = "folders"
    classes: Path | None = None
    parts: tuple[str, ...] | None = None
    out: Path | None = None
    device: Literal["auto", "cuda", "cpu"] = "auto"


class Opened(NamedTuple):
    """An encoder, the labelled images that teach, those that test, and the machine."""

    encoder: Encoder
    bank: Manifest
    query: Manifest
    accelerator: Accelerator


@contextmanager
def open_inputs(inputs: Inputs) -> Iterator[Opened]:
    """What the inputs name, checked before anything long begins; the process group ends with it."""
    distributed.adopt_slurm_variables()
    encoder = load_encoder(inputs.run, inputs.weights, inputs.backbone)
    if inputs.parts:
        encoder = with_parts(encoder, inputs.parts)
    try:
        _folder(inputs).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {_folder(inputs)}: {error.strerror}; give another --out") from None
    if inputs.dataset != "folders" and inputs.classes:
        raise UserError(f"--classes names class folders, and {inputs.dataset} has none")
    bank, query = (_images(inputs, split) for split in ("train", "test"))
    labelled.check(bank, query)
    try:
        yield Opened(encoder, bank, query, Accelerator.from_execution(Execution(device=inputs.device)))
    finally:
        distributed.stop()


def _images(inputs: Inputs, split: str) -> Manifest:
    if inputs.dataset in ARCHIVES:
        return open_archive(inputs.dataset, inputs.data, split, progress=True)
    split = "val" if split == "test" else split
    return open_manifest(inputs.data, split=split, classes=inputs.classes, progress=True)


def _folder(inputs: Inputs) -> Path:
    if not (inputs.out or inputs.run):
        raise UserError("--weights needs a folder for the results: give --out")
    return inputs.out or inputs.run


def say(text: str) -> None:
    if distributed.is_main():
        print(text)


def publish(inputs: Inputs, opened: Opened, found: Results) -> None:
    """Show and write what was found, with its conditions."""
    if not distributed.is_main():
        return
    about: dict[str, Any] = {
        "encoder": opened.encoder.origin,
        "data": str(inputs.data),
        "bank": len(opened.bank),
        "queries": len(opened.query),
        "classes": len(opened.bank.classes),
        "machine": str(opened.accelerator),
        **found.about,
        **conditions(),
    }
    found = replace(found, about=about)
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_WIDTH)
    console.print(found.title, style="italic")
    console.print(results.console_table(found))
    paths = results.write(_folder(inputs), found)
    print(f"written: {', '.join(map(str, paths))}")
