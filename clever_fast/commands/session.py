"""What every protocol takes, and what it leaves."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.table import Table

from clever_fast import distributed
from clever_fast.accelerator import Accelerator
from clever_fast.encoders.encoder import EncoderSource, TrainedEncoder
from clever_fast.environment import conditions
from clever_fast.errors import UserError
from clever_fast.evaluate import labelled, results
from clever_fast.evaluate.results import Results
from clever_fast.options import Execution
from clever_fast.pipelines.archives import ARCHIVES, open_archive
from clever_fast.pipelines.listing import refuse_inside
from clever_fast.pipelines.manifest import Manifest, open_manifest
from clever_fast.terminal import show

Device = Literal["auto", "cuda", "cpu"]
Dataset = Literal["folders", "cub200", "flowers102", "flowers102_valid", "food101", "pets"]


@dataclass(frozen=True, kw_only=True)
class Inputs(EncoderSource):
    """What every protocol takes beside its encoder.

    Args:
        data: folder with train/ and val/ or test/, each of class folders; or where a published archive is unpacked.
        dataset: how `data` is laid out: class folders, or as the official archives of that data set unpack;
            flowers102_valid trains on its validation images as well.
        classes: file with one class folder a line, for a subset.
        protocol: of the released code: dino, which is CLeVER's too, or simsiam, which is DDCL's; by default that of the
            run's method, and dino for weights that do not tell. `knn` is the same in both.
        parts: of the features, such as [all,IR,EF]; all that there are by default.
        out: folder for the results; by default the run's, or results/NAME for --weights NAME.pth.
        device: where to compute.
    """

    data: Path
    dataset: Dataset = "folders"
    classes: Path | None = None
    protocol: Literal["dino", "simsiam"] | None = None
    parts: tuple[str, ...] | None = None
    out: Path | None = None
    device: Device = "auto"


class Opened(NamedTuple):
    """An encoder, the labelled images that teach, those that test, and the machine."""

    encoder: TrainedEncoder
    bank: Manifest
    query: Manifest
    accelerator: Accelerator


@contextmanager
def open_inputs(inputs: Inputs) -> Iterator[Opened]:
    """What the inputs name, checked before anything long begins; the process group ends with it."""
    distributed.adopt_slurm_variables()
    encoder = inputs.load()
    if inputs.protocol:
        encoder = encoder.replace(protocol=inputs.protocol)
    if inputs.parts:
        encoder = encoder.with_parts(inputs.parts)
    if inputs.dataset != "folders" and inputs.classes:
        raise UserError(f"--classes names class folders, and {inputs.dataset} has none")
    bank, query = (_images(inputs, split) for split in ("train", "test"))
    labelled.check(bank, query)
    for manifest in (bank, query) if inputs.dataset == "folders" else ():
        refuse_inside(_folder(inputs), manifest.root, "--out")
    make_folder(_folder(inputs))
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
    return inputs.out or inputs.run or _own_folder(inputs)


def _own_folder(source: EncoderSource) -> Path:
    """Where the results of weights that are no run go, unless the user says."""
    return Path("results") / source.weights.stem


def make_folder(folder: Path) -> None:
    """Make a folder for results.

    Raises:
        UserError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; give another --out") from None


def open_encoder(
    source: EncoderSource, out: Path | None, name: str, device: Device
) -> tuple[TrainedEncoder, Accelerator, Path]:
    """An encoder, where to compute, and the folder `name` of its results, which is made."""
    encoder = source.load()
    folder = out or (source.run or _own_folder(source)) / name
    make_folder(folder)
    return encoder, Accelerator.from_execution(Execution(device=device)), folder


def say(text: str) -> None:
    if distributed.is_main():
        print(text)


def publish(inputs: Inputs, opened: Opened, found: Results) -> None:
    """Show and write what was found, with its conditions."""
    if not distributed.is_main():
        return
    about: dict[str, Any] = {
        "encoder": opened.encoder.origin,
        "protocol": opened.encoder.protocol,
        "data": str(inputs.data),
        "bank": len(opened.bank),
        "queries": len(opened.query),
        "classes": len(opened.bank.classes),
        "machine": str(opened.accelerator),
        **found.about,
        **conditions(),
    }
    found = replace(found, about=about)
    paths = results.write(_folder(inputs), found)  # first, as printing may fail
    show(results.console_table(found), found.title)
    print(f"written: {', '.join(map(str, paths))}")


def publish_percentages(
    path: Path,
    rows: dict[str, dict[str, float]],
    title: str,
    encoder: TrainedEncoder,
    data: Path,
    accelerator: Accelerator,
    about: dict[str, Any],
) -> None:
    """Write rows of percentages with their conditions, and show them as a table."""
    result = {"encoder": encoder.origin, "data": str(data), "machine": str(accelerator), "scores": rows, **about}
    results.keep_earlier([path])
    path.write_text(json.dumps(result | conditions(), indent=2) + "\n")
    if rows:
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        table.add_column("features")
        for name in next(iter(rows.values())):
            table.add_column(name, justify="right")
        for name, row in rows.items():
            table.add_row(name, *(f"{value:.1f}" for value in row.values()))
        show(table)
    print(f"written to {path.parent}")
