"""Encoders out of files of weights: our own, released DINO and CLeVER, timm, torchvision, VMamba.

A file is only read, never run: pickles load with weights_only, and of the classes that released checkpoints hold beside
their tensors argparse.Namespace alone is let in.
"""

import argparse
import json
import re
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from clever_fast import checkpoint
from clever_fast.errors import UserError
from clever_fast.models import BACKBONES, Backbone, find_backbone

CONTAINERS = ("teacher", "model", "state_dict")  # where a checkpoint keeps the weights; DINO evaluates the teacher
PREFIXES = ("module.", "_orig_mod.", "backbone.")  # of DDP, torch.compile and DINO's MultiCropWrapper
HEADS = ("head", "head2", "fc", "classifier.head")  # projection heads and classifiers, which are left out
SIZE = 224  # pixels for which released weights were trained
LISTED = 4  # keys that an error names

Parts = dict[str, slice]
Differences = tuple[list[str], list[str], list[str]]  # missing, unknown, of another shape


def read_encoder(path: Path, backbone: str | None = None) -> tuple[nn.Module, Parts, int]:
    """An encoder with every weight of a file, on the CPU in eval mode; says what it left out.

    Args:
        path: checkpoint.pth or encoder.safetensors of a run, a file of `clever-fast export`, or a checkpoint of DINO,
            CLeVER (teacher), timm, torchvision or VMamba.
        backbone: the name of the network; None finds it by the weights' names and shapes.

    Returns:
        The encoder (images (N, 3, S, S) -> features (N, D)), the parts of its features, and the size S it was made for.

    Raises:
        UserError: no such file, nothing that can be read safely, no backbone of ours, or weights missing or unknown.
    """
    backbone = backbone and find_backbone(backbone).name
    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'not there'}: give a file of weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, backbone)
    content = _load(path)
    if "recipe" in content and "format" in content:
        method, recipe, _ = checkpoint.load_method(path)
        _refuse_other(path, recipe.backbone.name, backbone)
        return method.encoder.eval(), method.parts(), recipe.global_size
    for key in CONTAINERS:
        if isinstance(content.get(key), dict):
            content = content[key]
            print(f"{path}: taking {key!r}")
            break
    weights, heads = _without_heads(path, _tensors(path, content))
    encoder = _encoder(path, weights, backbone)
    return encoder, _parts(heads, encoder.embed_dim), SIZE


def recognise(weights: dict[str, Tensor], names: Iterable[str] = BACKBONES) -> Backbone:
    """The backbone whose weights have these names and shapes.

    Raises:
        UserError: none has, or several have; names the nearest.
    """
    differing = {name: differences(_shapes(name), weights) for name in names}
    fitting = [name for name, found in differing.items() if not any(found)]
    if len(fitting) == 1:
        return BACKBONES[fitting[0]]
    if fitting:
        raise UserError(f"these weights fit {' and '.join(fitting)}; choose with --backbone")
    nearest = sorted(differing, key=lambda name: (_excess(differing[name]), len(differing[name][0])))[:3]
    listed = " or ".join(nearest)
    raise UserError(f"no weights of {listed}: {describe(differing[nearest[0]], nearest[0])}")


def differences(wanted: dict[str, torch.Size], weights: dict[str, Tensor]) -> Differences:
    """Names that are missing, unknown, and of another shape; a ViT's position embeddings may have any length."""
    # torchvision's older files lack BatchNorm's counters, which nothing reads
    missing = [name for name in wanted if name not in weights and not name.endswith("num_batches_tracked")]
    unknown = [name for name in weights if name not in wanted]
    other = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if name in weights and _squeezed(weights[name], shape).shape != shape
        if name != "pos_embed" or weights[name].shape[::2] != shape[::2]
    ]
    return missing, unknown, other


def _excess(found: Differences) -> int:
    return len(found[1]) + len(found[2])


def describe(found: Differences, name: str) -> str:
    """What `differences` found, as one line with counts and the first names."""
    kinds = (f"missing for {name}", "unknown", "of another shape")
    return "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''}"
        for kind, names in zip(kinds, found, strict=True)
        if names
    )


def _encoder(path: Path, weights: dict[str, Tensor], backbone: str | None) -> nn.Module:
    try:
        found = recognise(weights, BACKBONES if backbone is None else (backbone,))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    encoder = found.build(0.0)
    state = {name: _squeezed(weights[name], t.shape) for name, t in encoder.state_dict().items() if name in weights}
    if "pos_embed" in state and state["pos_embed"].shape != encoder.pos_embed.shape:
        state["pos_embed"] = _resampled(path, state["pos_embed"], encoder)
    encoder.load_state_dict(state)
    print(f"{path}: {len(state)} weights of {found}")
    return encoder.eval()


def _resampled(path: Path, embedding: Tensor, encoder: nn.Module) -> Tensor:
    """Position embeddings (1, 1 + n, D) of another image size, interpolated as timm does: bicubic, antialiased."""
    from timm.layers import resample_abs_pos_embed

    grid, count = encoder.patch_embed.grid_size, embedding.shape[1] - 1
    side = round(count**0.5)
    if side * side != count:
        raise UserError(f"{path}: {count} position embeddings are no square of patches")
    print(f"{path}: position embeddings of {side} x {side} patches interpolated to {grid[0]} x {grid[1]}")
    return resample_abs_pos_embed(embedding, new_size=grid, verbose=False)


def _without_heads(path: Path, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's weights and the heads', the wrappers' prefixes taken off; says which heads there are."""
    kept, heads = {}, {}
    for name, tensor in weights.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        place = heads if _head_of(name) else kept
        if name in place:
            raise UserError(f"{path} holds {name} twice, with and without {' or '.join(PREFIXES)}: keep one of them")
        place[name] = tensor
    if heads:
        print(f"{path}: left out {', '.join(sorted({f'{_head_of(name)}.*' for name in heads}))}, {len(heads)} weights")
    return kept, heads


def _head_of(name: str) -> str | None:
    return next((head for head in HEADS if name.startswith(f"{head}.")), None)


def _parts(heads: dict[str, Tensor], features: int) -> Parts:
    """CLeVER's two heads tell by their inputs where the feature vector is split."""
    widths = [heads[name].shape[1] for head in ("head", "head2") if (name := f"{head}.mlp.0.weight") in heads]
    parts = {"all": slice(None)}
    if len(widths) == 2 and sum(widths) == features:
        parts |= {"IR": slice(0, widths[0]), "EF": slice(widths[0], None)}
    return parts


def _read_safetensors(path: Path, backbone: str | None) -> tuple[nn.Module, Parts, int]:
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no whole safetensors file: {error}") from None
    about = path.with_suffix(".json")
    if not about.exists():
        print(f"{path}: no {about.name} beside it, so its features have no parts and its images {SIZE} px")
        weights, heads = _without_heads(path, weights)
        encoder = _encoder(path, weights, backbone)
        return encoder, _parts(heads, encoder.embed_dim), SIZE
    try:
        known = json.loads(about.read_text())
        name, size = known["backbone"], known["size"]
        parts = {part: slice(*channels) for part, channels in known["parts"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{about} does not describe {path.name} ({error}): export it again, or remove it") from None
    _refuse_other(path, name, backbone)
    return _encoder(path, weights, name), parts, size


def _load(path: Path) -> dict[str, Any]:
    """A pickled checkpoint's content on the CPU, without running anything in it."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch, zipfile and pickle each have their own
        raise UserError(f"{path} holds no weights that can be read safely: {_reason(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a dictionary of weights")
    return content


def _reason(error: Exception) -> str:
    if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"loading it would run {refused[1]}; if you trust its source, load it with weights_only=False and save its "
            "tensors alone"
        )
    return "it is damaged, or no checkpoint of torch"


def _tensors(path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    odd = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if odd or not content:
        raise UserError(
            f"{path} holds {', '.join(odd[:LISTED]) or 'nothing'}; expected weights, or one of the keys "
            f"{', '.join(CONTAINERS)}"
        )
    return content


def _refuse_other(path: Path, name: str, backbone: str | None) -> None:
    if backbone not in (None, name):
        raise UserError(f"{path} holds a {name}, not a {backbone}: leave out --backbone")
    if name not in BACKBONES:
        raise UserError(f"{path} holds a {name}, which this version does not know; there are {', '.join(BACKBONES)}")


def _squeezed(tensor: Tensor, shape: torch.Size) -> Tensor:
    """A 1x1 convolution's weight as a linear layer's, where one is wanted: VMamba's were saved in both forms."""
    return tensor.flatten(1) if tensor.ndim == 4 and len(shape) == 2 and tensor.shape[2:] == (1, 1) else tensor


@cache
def _shapes(name: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: tensor.shape for key, tensor in BACKBONES[name].build(0.0).state_dict().items()}
