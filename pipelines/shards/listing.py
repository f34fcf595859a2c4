"""Which shards `--data` names: those of a folder, of its train/ or val/, of a URL, or of a pattern with braces."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from clever_fast.errors import UserError
from clever_fast.pipelines.listing import SPELLINGS, SPLITS, subfolders
from clever_fast.pipelines.shards.storage import Local, Remote, as_url

INDEX = "shards.json"
VERSION = 1
NAMED = {"train": "train", "val": "val|valid|validation", "test": "test"}  # how shards' names call their split


@dataclass(frozen=True)
class Shards:
    """The shards of one split, by name."""

    store: Local | Remote
    sizes: dict[str, int]  # name -> bytes
    index: dict[str, Any] | None  # what `shard build` wrote beside them

    @property
    def digest(self) -> str:
        """Changes with every shard added, removed, renamed or of another length, wherever they lie."""
        return blake2b(repr(sorted(self.sizes.items())).encode(), digest_size=16).hexdigest()


def find_shards(data: Path | str, split: str, *, whole: bool = True) -> Shards | None:
    """The shards that `data` names; None for a folder without any, or with folders of images beside them.

    whole: refuse a set of which `shards.json` says that something is missing.

    Raises:
        UserError: shards, but none of this split; a build that did not finish, or does not lie here whole.
        ConnectionError: a URL that cannot be read.
    """
    url = as_url(data)
    if (url or str(data)).endswith(".tar"):
        folder, _, pattern = (url or str(data)).rpartition("/")
        return _named(Remote(folder) if url else Local(Path(folder or ".")), _expand(pattern))
    names = [name for wanted in SPLITS.get(split, (split,)) for name in SPELLINGS.get(wanted, (wanted,))]
    places = [f"{url or data}/{name}" for name in (SPLITS.get(split, (split,)) if url else names)] + [url or str(data)]
    for place in places:
        if url is None and (not Path(place).is_dir() or subfolders(Path(place))):
            continue
        store = Remote(place) if url else Local(Path(place))
        if found := _all(store, split, whole):
            return found
    if url:
        raise UserError(f"{url} shows no shards; name them, such as {url}/NAME-{split}-{{000000..000123}}.tar")
    others = [name for name in SPLITS if any(Path(data, name).glob("*.tar")) and not subfolders(Path(data, name))]
    if others:
        raise UserError(f"{data} has shards of {' and '.join(others)}, but none of {split}")
    return None


def splits_of_shards(data: Path | str) -> list[str]:
    """The splits of which a folder holds shards, `train` for one without splits and for what is no folder."""
    if as_url(data) or not Path(data).is_dir():
        return ["train"]
    found = [s for s in SPELLINGS if any(any(Path(data, name).glob("*.tar")) for name in SPELLINGS[s])]
    if not found:
        names = [path.name for path in Path(data).glob("*.tar")]
        found = [split for split, words in NAMED.items() if any(_says(name, words) for name in names)]
    return found or ["train"]


def read_index(store: Local | Remote) -> dict[str, Any] | None:
    """What `shard build` has written beside its shards, finished or not; None if it has not.

    Raises:
        UserError: it is damaged, or of another version.
    """
    if not store.has(INDEX):
        return None
    try:
        index = json.loads(store.read(INDEX))
        version, entries = index["clever_fast shards"], index["shards"]
        sound = all(isinstance(name, str) for name in index["classes"]) and all(
            re.fullmatch(r"[^/\\]+\.tar", entry["name"]) and entry["bytes"] >= 0 and len(entry["sha256"]) == 64
            for entry in entries
        )
    except (ValueError, KeyError, TypeError):
        version, sound = VERSION, False
    if version != VERSION:
        raise UserError(
            f"{store.place}/{INDEX} has version {version}, this program reads {VERSION}: use the one it is of"
        )
    if not sound:
        raise UserError(f"{store.place}/{INDEX} is damaged: copy it again, or build the shards again")
    return index


def _all(store: Local | Remote, split: str, whole: bool) -> Shards | None:
    if index := read_index(store):
        return _built(store, index, whole)
    try:
        sizes = {name: size for name, size in store.sizes().items() if name.endswith(".tar") and name[0] != "."}
    except FileNotFoundError:
        return None
    if not sizes:
        return None
    of = {name: next((s for s, words in NAMED.items() if _says(name, words)), None) for name in sizes}
    if any(of.values()):
        wanted = next((s for s in SPLITS.get(split, (split,)) if s in of.values()), split)
        sizes = {name: size for name, size in sizes.items() if of[name] == wanted}
        if not sizes:
            there = " and ".join(sorted(set(filter(None, of.values()))))
            raise UserError(f"{store.place} has shards of {there}, but none of {split}")
    return Shards(store, dict(sorted(sizes.items())), None)


def _built(store: Local | Remote, index: dict, whole: bool) -> Shards:
    sizes = {entry["name"]: entry["bytes"] for entry in index["shards"]}
    if not index["complete"]:
        raise UserError(f"the shards in {store.place} are not finished: call `clever-fast shard build` again as before")
    if isinstance(store, Local):
        there = store.sizes()
        if not whole:
            return Shards(store, {name: there[name] for name in sizes if name in there}, index)
        for name, size in sizes.items():
            if there.get(name) != size:
                found = f"has {there[name]:,} of {size:,} bytes" if name in there else "is missing"
                raise UserError(f"{store.place}/{name} {found}: copy it again, or build it again with `shard build`")
    return Shards(store, sizes, index)


def _named(store: Local | Remote, names: list[str]) -> Shards:
    try:
        return Shards(store, store.sizes(names), None)
    except FileNotFoundError as error:
        raise UserError(f"no such shard: {error.filename}") from None


def _says(name: str, words: str) -> bool:
    return re.search(rf"(?:^|[-_.])(?:{words})(?:[-_.\d]|$)", name) is not None


def _expand(pattern: str) -> list[str]:
    """`a-{08..10}.tar` as a-08.tar, a-09.tar and a-10.tar; several pairs of braces multiply."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    if int(last) < int(first):
        raise UserError(f"the shards {found[0]} count backwards: write the lower number first")
    numbers = [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
    return [pattern[: found.start()] + n + rest for n in numbers for rest in _expand(pattern[found.end() :])]
