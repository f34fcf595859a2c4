"""An encoder for others to use: safetensors with its description, timm's state dict, ONNX."""

import contextlib
import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from clever_fast.errors import UserError
from clever_fast.methods import Method
from clever_fast.models import Backbone
from clever_fast.models.vmamba import VMamba
from clever_fast.ops import extension
from clever_fast.ops.cross_scan.portable import DECOMPOSITIONS
from clever_fast.options import Recipe
from clever_fast.pipelines.views import MEAN, STD

NAME = "encoder.safetensors"


def description(
    encoder: nn.Module, backbone: Backbone, parts: dict[str, slice], size: int, **more: Any
) -> dict[str, Any]:
    """What one must know to use an encoder: its network, the size in pixels of its images and how they are normalised
    (of 0 to 1), and the parts of its features as [first channel, last + 1]."""
    return {
        "backbone": backbone.name,
        "size": size,
        "features": encoder.embed_dim,
        "parts": {name: part.indices(encoder.embed_dim)[:2] for name, part in parts.items()},
        "mean": MEAN,
        "std": STD,
        **more,
    }


def write_run(folder: Path, method: Method, recipe: Recipe, step: int) -> Path:
    """`encoder.safetensors` and `encoder.json` of a training run, with its recipe and step."""
    about = description(
        method.encoder, recipe.backbone, method.parts(), recipe.global_size, recipe=recipe.as_dict(), step=step
    )
    write_safetensors(folder / NAME, method.encoder, about)
    return folder / NAME


def write_safetensors(path: Path, encoder: nn.Module, about: dict[str, Any]) -> None:
    """The weights under the backbone's own names, and `about` as JSON beside them; `read_encoder` reads both."""
    with _whole(path) as temporary:
        temporary.write_bytes(save(_state(encoder), metadata={"format": "pt"}))
    with _whole(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n")


def write_timm(path: Path, encoder: nn.Module, backbone: Backbone) -> str:
    """A state dict for `timm.create_model(name, num_classes=0, checkpoint_path=path)`; returns timm's name.

    Raises:
        UserError: timm has no such network.
    """
    if not backbone.in_timm:
        raise UserError(f"timm has no network with the weights of {backbone}: use --format safetensors or onnx")
    with _whole(path) as temporary, temporary.open("wb") as file:
        torch.save(_state(encoder), file)
    return backbone.name


def write_onnx(path: Path, encoder: nn.Module, about: dict[str, Any]) -> None:
    """An ONNX graph from `images` (N, 3, S, S) float32 to `features` (N, D), any N, S = about["size"].

    VMamba's scan becomes log2 of the number of positions passes of standard operators. `about` goes into the model's
    metadata, each value as JSON.

    Raises:
        UserError: the exporter is not installed, or the kernels that a VMamba is traced through were not built.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--format onnx needs {error.name}: pip install 'clever_fast[export]'") from None
    if isinstance(encoder, VMamba) and not DECOMPOSITIONS:
        raise UserError(f"--format onnx of a VMamba needs the kernels: {extension.missing}. Run: {extension.REBUILD}")
    size, encoder = about["size"], copy.deepcopy(encoder).cpu().eval().requires_grad_(False)
    batch = ({0: torch.export.Dim.DYNAMIC},)
    with _whole(path) as temporary, _quiet():
        program = torch.export.export(encoder, (torch.zeros(2, 3, size, size),), dynamic_shapes=batch)
        program = program.run_decompositions(DECOMPOSITIONS)
        model = torch.onnx.export(
            program, dynamo=True, input_names=["images"], output_names=["features"], verbose=False
        )
        model.model.metadata_props.update({key: json.dumps(value) for key, value in about.items()})
        model.save(temporary)


def _state(encoder: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place once it is written; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.touch()  # what cannot be written is known before the work
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice on its own options."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
