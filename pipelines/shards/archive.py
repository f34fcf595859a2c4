"""The tar format: where the members of an archive lie. Nothing is unpacked and nothing is written.

Python's `tarfile` takes a damaged header in the middle for the end of the archive; here that is an error.
Format: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = 512
END = bytes(2 * BLOCK)  # two empty blocks
LONGEST_EXTENSION = 1 << 20  # bytes of a member that carries a long name
LINKS = {b"1": "a hard link", b"2": "a symbolic link"}
WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")


class ArchiveError(ValueError):
    """An archive that cannot be read on from here."""


class Member(NamedTuple):
    """A member of an archive; `fault` says why it must not be used, and is empty for a sound file."""

    name: str
    offset: int  # of its bytes in the archive
    size: int  # in bytes
    fault: str


def members(read: Callable[[int, int], bytes], length: int) -> Iterator[Member]:
    """The files of an archive of `length` bytes, in order; folders are passed over.

    read: (offset, size) -> exactly that many bytes, never asked for more than there are.

    Raises:
        ArchiveError: the archive is cut off, or what should be a header is none.
    """
    offset, long_name, extended = 0, "", {}
    while offset + BLOCK <= length:
        header = read(offset, BLOCK)
        if not any(header):
            return
        if not _is_header(header):
            raise ArchiveError(f"no tar header at byte {offset:,}" if offset else "not a tar archive")
        kind, size = header[156:157], _number(header[124:136], offset)
        size = extended.get("size", size)
        name = extended.get("path") or long_name or _name(header)
        start, offset = offset + BLOCK, offset + BLOCK + (0 if kind in WITHOUT_DATA else _padded(size))
        if offset > length:
            raise ArchiveError(f"cut off in {name!r}: {length:,} bytes, at least {offset:,} expected")
        if kind in b"xgLK":
            if size > LONGEST_EXTENSION:
                raise ArchiveError(f"an extended header of {size:,} bytes at byte {start - BLOCK:,}")
            if kind == b"x":
                extended = _pax(read(start, size), start)
            elif kind == b"L":
                long_name = _text(read(start, size))
            continue
        if kind != b"5" or _climbs(name):
            yield Member(name.removeprefix("./"), start, size, _fault(name, kind))
        long_name, extended = "", {}
    raise ArchiveError(f"cut off: no end mark after {length:,} bytes")


def header(name: str, size: int) -> bytes:
    """The block before a file's bytes: the same for the same name and size, whoever writes it and whenever."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def padding(size: int) -> bytes:
    """What fills a file of `size` bytes up to a whole block."""
    return bytes(_padded(size) - size)


def stored_size(size: int) -> int:
    """What a file of `size` bytes takes up, header and padding included."""
    return BLOCK + _padded(size)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _is_header(block: bytes) -> bool:
    """Whether the checksum is right; some old programs summed signed characters."""
    try:
        wanted = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    return wanted == sum(rest) or wanted == sum(rest) - 256 * sum(byte > 127 for byte in rest)


def _number(field: bytes, offset: int) -> int:
    try:
        value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        value = -1
    if value < 0:
        raise ArchiveError(f"the tar header at byte {offset:,} has no size")
    return value


def _name(block: bytes) -> str:
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(block[:100])}" if prefix else _text(block[:100])


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes, offset: int) -> dict:
    """The path and size of an extended header, whose records read `LENGTH KEY=VALUE\\n`."""
    found = {}
    try:
        while data:
            length = int(data[: data.index(b" ")])
            key, value = data[data.index(b" ") + 1 : length - 1].split(b"=", 1)
            if length < 5 or length > len(data):
                raise ValueError
            if key == b"path":
                found["path"] = _text(value)
            elif key == b"size":
                found["size"] = int(value)
                if found["size"] < 0:
                    raise ValueError
            data = data[length:]
    except ValueError:
        raise ArchiveError(f"a damaged extended header at byte {offset:,}") from None
    return found


def _climbs(name: str) -> bool:
    """Whether a program that unpacks it would write outside of its folder, on Linux or Windows."""
    return re.match(r"[/\\]|[A-Za-z]:[/\\]", name) is not None or ".." in re.split(r"[/\\]", name)


def _fault(name: str, kind: bytes) -> str:
    if _climbs(name):
        return "its path climbs out of the archive"
    if kind in LINKS:
        return LINKS[kind]
    return "" if kind in (b"0", b"\0", b"7") else "neither a file nor a folder"
