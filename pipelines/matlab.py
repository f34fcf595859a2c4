"""One array out of a MATLAB 5 file, which is how the labels of Oxford Flowers-102 are published."""

import zlib
from pathlib import Path

import numpy as np

from clever_fast.errors import UserError

COMPRESSED, MATRIX = 15, 14
NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}


def read_array(file: Path, name: str) -> np.ndarray:
    """The values of the numeric array `name`, flat, as int64. Source: MathWorks, MAT-File Format, level 5.

    Raises:
        UserError: the file is damaged or holds no such array.
    """
    try:
        for kind, data in _elements(file.read_bytes()[128:]):
            if kind == COMPRESSED:
                ((kind, data),) = _elements(zlib.decompress(data))
            if kind == MATRIX:
                (_, _flags), (_, _shape), (_, label), (number, values), *_ = _elements(data)
                if bytes(label).decode() == name:
                    return np.frombuffer(values, NUMBERS[number]).astype(np.int64)
    except (OSError, ValueError, KeyError, IndexError, zlib.error) as error:
        raise UserError(f"{file} is no MATLAB 5 file: {error}") from None
    raise UserError(f"{file} holds no array {name!r}: it is not the published file")


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """The (type, content) of each element; short ones keep their content in the tag, others are padded to 8 bytes."""
    found, at = [], 0
    while at + 8 <= len(data):
        kind, size = np.frombuffer(data, "<u4", 2, at).tolist()
        if small := kind >> 16:
            found.append((kind & 0xFFFF, data[at + 4 : at + 4 + small]))
            at += 8
            continue
        content = data[at + 8 : at + 8 + size]
        if len(content) < size:
            raise ValueError("it ends too early")
        found.append((kind, content))
        at += 8 + size + (0 if kind == COMPRESSED else -size % 8)
    return found
