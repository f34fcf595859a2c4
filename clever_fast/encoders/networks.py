"""Which networks a file of weights holds: the subtrees of its names that look like a backbone's."""

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from clever_fast.errors import UserError

NetworkName = Literal["student", "teacher"]

WRAPPERS = {"module", "_orig_mod"}  # of DDP and torch.compile, anywhere in a name
HEADS = ("head", "head2", "fc", "classifier.head")  # projection heads and classifiers within a network
# Of the first layers of a ResNet, a ViT and a VMamba, several of each, so that one that lacks some is still found
ANCHORS = (
    *("conv1.weight", "bn1.weight", "layer1.0.conv1.weight"),
    *("cls_token", "pos_embed", "patch_embed.proj.weight"),
    *("patch_embed.0.weight", "layers.0.blocks.0.norm.weight"),
)
AVERAGED = {"teacher", "momentum", "target", "ema", "k"}  # words of a name that tell a teacher: `encoder_k` is MoCo's
SIAMESE = {"predictor", "projector_img", "projector_aug", "predictor_img", "predictor_aug"}  # beside SimSiam's, DDCL's
LISTED = 8  # groups of weights that an error names


@dataclass(frozen=True)
class Found:
    """One network of a file.

    prefix: of its names, with a dot at the end, or empty. weights: under its own names, without heads. heads: those,
    under its own names, and what lies beside the network, under the names that the module around it gives. left_out:
    groups of names that are not taken, and how many weights they are.
    """

    prefix: str
    weights: dict[str, Tensor]
    heads: dict[str, Tensor]
    left_out: dict[str, int]

    @property
    def protocol(self) -> str:
        """simsiam where the names are those of SimSiam's or DDCL's released code, otherwise dino."""
        beside = {name.split(".")[0] for name in self.heads if not _head_of(name)}
        return "simsiam" if self.prefix == "encoder." and beside and beside <= SIAMESE else "dino"


def find_network(weights: dict[str, Tensor], wanted: NetworkName | None) -> Found:
    """The network of a state dict whose name tells that it is `wanted`.

    Where there are several and none is wanted it is the one that is evaluated: the teacher where it is called so, as in
    DINO, otherwise the student, as in MoCo v3 and solo-learn.

    Raises:
        UserError: there is none, or not the one that is wanted, or several; names what was found.
    """
    weights = _unwrapped(weights)
    prefixes = _prefixes(weights)
    if not prefixes:
        raise UserError(f"no network that is known here was found among {_listed(_groups(weights))}")
    by_role = {role: [p for p in prefixes if _role(p) == role] for role in ("student", "teacher")}
    names = " and ".join(f"{prefix}*" for prefix in prefixes)
    if wanted and len(prefixes) == 1 and not (wanted == "teacher" == _role(prefixes[0])):
        raise UserError(f"there is one network, {names}: leave out --network {wanted}")
    if wanted is None:
        called = any("teacher" in prefix for prefix in by_role["teacher"])
        wanted = "teacher" if called or not by_role["student"] else "student"
    if len(by_role[wanted]) != 1:
        count = "no" if not by_role[wanted] else "more than one"
        raise UserError(f"{count} {wanted} was found among the networks {names}: keep the one that is meant")
    return _cut(weights, by_role[wanted][0])


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the wrappers' parts of their names."""
    kept = {}
    for name, tensor in weights.items():
        name = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if name in kept:
            raise UserError(
                f"it holds {name} twice, with and without {' or '.join(sorted(WRAPPERS))}: keep one of them"
            )
        kept[name] = tensor
    return kept


def _prefixes(weights: dict[str, Tensor]) -> list[str]:
    """Prefixes of the networks, none within another: a ResNet's blocks begin like a ResNet."""
    found = {
        name.removesuffix(anchor)
        for name in weights
        for anchor in ANCHORS
        if name == anchor or name.endswith(f".{anchor}")
    }
    return sorted(p for p in found if not any(p != other and p.startswith(other) for other in found))


def _role(prefix: str) -> NetworkName:
    return "teacher" if AVERAGED & set(re.split(r"[._]", prefix)) else "student"


def _cut(weights: dict[str, Tensor], prefix: str) -> Found:
    around = prefix.removesuffix(".").rpartition(".")[0]
    own, heads, left_out = {}, {}, {}
    for name, tensor in weights.items():
        inside = name.removeprefix(prefix) if name.startswith(prefix) else None
        if inside is not None and not _head_of(inside):
            own[inside] = tensor
            continue
        if inside is not None:
            heads[inside], group = tensor, f"{prefix}{_head_of(inside)}.*"
        else:
            heads[name.removeprefix(f"{around}.")] = tensor
            group = _group(name)
        left_out[group] = left_out.get(group, 0) + 1
    return Found(prefix, own, heads, left_out)


def _head_of(name: str) -> str | None:
    return next((head for head in HEADS if name.startswith(f"{head}.")), None)


def _group(name: str) -> str:
    first, dot, _ = name.partition(".")
    return f"{first}.*" if dot else first


def _groups(weights: dict[str, Tensor]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in weights:
        counts[_group(name)] = counts.get(_group(name), 0) + 1
    return counts


def _listed(groups: dict[str, int]) -> str:
    shown = ", ".join(f"{name} ({count})" for name, count in list(groups.items())[:LISTED])
    return shown + ", ..." * (len(groups) > LISTED)
