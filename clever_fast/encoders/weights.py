"""Encoders out of files of weights: our own, and released or trained by other projects.

A file is only read, never run: pickles load with weights_only, and of the classes that released checkpoints hold beside
their tensors argparse.Namespace alone is let in.
"""

import argparse
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from clever_fast import checkpoint
from clever_fast.encoders.networks import NetworkName, find_network
from clever_fast.errors import UserError
from clever_fast.methods import METHODS, Method
from clever_fast.models import BACKBONES, Backbone, find_backbone
from clever_fast.models.vit import resize_positions
from clever_fast.options import Recipe

CONTAINERS = ("model", "state_dict")  # where a checkpoint keeps the weights, but for DINO's student and teacher
SIZE = 224  # pixels for which released weights were trained
LISTED = 4  # keys that an error names

Parts = dict[str, slice]
Differences = tuple[list[str], list[str], list[str]]  # missing, unknown, of another shape


class Read(NamedTuple):
    """What a file holds.

    network: images (N, 3, S, S) -> features (N, D), on the CPU in eval mode. parts: of the features. size: the S it was
    made for. protocol: by which the released code evaluates such files, as of `Encoder`.
    """

    network: nn.Module
    parts: Parts
    size: int
    protocol: str = "dino"


def read_encoder(path: Path, backbone: str | None = None, network: NetworkName | None = None) -> Read:
    """An encoder with every weight of a file; says what it left out.

    Args:
        path: checkpoint.pth or encoder.safetensors of a run, a file of `clever-fast export`, or a checkpoint of DINO,
            CLeVER, SimSiam, DDCL, MoCo v3, VICReg, solo-learn, Lightning, timm, torchvision or VMamba.
        backbone: the name of the network; None finds it by the weights' names and shapes.
        network: student or teacher, where a file has both; None for the one that is evaluated: DINO's and CLeVER's
            teacher, and the trained network of the others.

    Raises:
        UserError: no such file, nothing that can be read safely, no backbone of ours, or weights missing or unknown.
    """
    backbone = backbone and find_backbone(backbone).name
    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'not there'}: give a file of weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, backbone, network)
    content = _load(path)
    if "recipe" in content and "format" in content:
        method, recipe, _ = checkpoint.load_method(path)
        _refuse_other(path, recipe.backbone.name, backbone)
        encoder = encoder_of(method, recipe, network)
        return Read(encoder.eval(), method.parts(), recipe.global_size, recipe.method.protocol)
    if isinstance(content.get("teacher"), dict) or isinstance(content.get("student"), dict):
        chosen = network or ("teacher" if "teacher" in content else "student")
        if not isinstance(content.get(chosen), dict):
            raise UserError(
                f"{path} holds {', '.join(map(repr, content))}, no {chosen!r}: leave out --network {network}"
            )
        content, network = content[chosen], None
        print(f"{path}: taking {chosen!r}")
    for key in CONTAINERS:
        if isinstance(content.get(key), dict):
            content = content[key]
            print(f"{path}: taking {key!r}")
            break
    return _read(path, _tensors(path, content), backbone, network)


def encoder_of(method: Method, recipe: Recipe, network: NetworkName | None) -> nn.Module:
    """The encoder of a run's method, or its student's or teacher's.

    Raises:
        UserError: it has but one network.
    """
    if network is None:
        return method.encoder
    if not hasattr(method, network):
        raise UserError(f"a run of {recipe.method.name} has one network: leave out --network {network}")
    return getattr(method, network).backbone


def _read(path: Path, weights: dict[str, Tensor], backbone: str | None, network: NetworkName | None) -> Read:
    try:
        found = find_network(weights, network)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if found.prefix:
        print(f"{path}: taking {found.prefix}*")
    if found.left_out:
        print(f"{path}: left out {', '.join(sorted(found.left_out))}, {sum(found.left_out.values())} weights")
    encoder = _encoder(path, found.weights, backbone)
    return Read(encoder, _parts(found.heads, encoder.embed_dim), SIZE, found.protocol)


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
    """Position embeddings (1, 1 + n, D) of another image size, interpolated to the encoder's."""
    grid, count = encoder.patch_embed.grid_size, embedding.shape[1] - 1
    side = round(count**0.5)
    if side * side != count:
        raise UserError(f"{path}: {count} position embeddings are no square of patches")
    print(f"{path}: position embeddings of {side} x {side} patches interpolated to {grid[0]} x {grid[1]}")
    return resize_positions(embedding, grid)


def _parts(heads: dict[str, Tensor], features: int) -> Parts:
    """CLeVER's two heads, and DDCL's two projectors, tell by their inputs where the feature vector is split."""
    parts = {"all": slice(None)}
    for first, second in (("head.mlp.0", "head2.mlp.0"), ("projector_img.0", "projector_aug.0")):
        widths = [heads[f"{name}.weight"].shape[1] for name in (first, second) if f"{name}.weight" in heads]
        if len(widths) == 2 and sum(widths) == features:
            parts |= {"IR": slice(0, widths[0]), "EF": slice(widths[0], None)}
    return parts


def _read_safetensors(path: Path, backbone: str | None, network: NetworkName | None) -> Read:
    try:
        weights = load(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no whole safetensors file: {error}") from None
    about = path.with_suffix(".json")
    if not about.exists():
        print(f"{path}: no {about.name} beside it, so its features have no parts and its images {SIZE} px")
        return _read(path, weights, backbone, network)
    try:
        known = json.loads(about.read_text())
        name, size = known["backbone"], known["size"]
        parts = {part: slice(*channels) for part, channels in known["parts"].items()}
        method = known.get("recipe", {}).get("method", {}).get("name")
        protocol = METHODS[method].protocol if method else known.get("protocol", "dino")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{about} does not describe {path.name} ({error}): export it again, or remove it") from None
    _refuse_other(path, name, backbone)
    if network:
        raise UserError(f"{path} holds one network: leave out --network {network}")
    return Read(_encoder(path, weights, name), parts, size, protocol)


def _load(path: Path) -> dict[str, Any]:
    """A pickled checkpoint's content on the CPU, without running anything in it."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = checkpoint.read_pickle(path)
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
            f"teacher, student, {', '.join(CONTAINERS)}"
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
