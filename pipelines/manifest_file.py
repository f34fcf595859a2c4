"""The manifest on disk: a line of JSON, then one tab-separated line for each file."""

import json
import os
import re
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from clever_fast.pipelines.indexing import Rows

VERSION = 1
COMMON = ("path", "label", "width", "height", "bytes")
COLUMNS = {5: (*COMMON, "mtime_ns", "reason"), 6: (*COMMON, "shard", "offset", "reason")}  # by how many are numbers
_PLAIN = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPES = {escape[1]: character for character, escape in _PLAIN.items()}


def escape(text: str) -> str:
    """Text without tabs or line ends; a byte that is not UTF-8 (a surrogate in Python's file names) becomes \\xNN."""
    return re.sub(
        "[\\\\\t\n\r\ud800-\udfff]", lambda match: _PLAIN.get(match[0]) or f"\\x{ord(match[0]) & 0xFF:02x}", text
    )


def unescape(text: str) -> str:
    """The inverse of `escape`."""
    if "\\" not in text:
        return text
    return re.sub(
        r"\\(?:x(..)|(.))", lambda match: chr(0xDC00 | int(match[1], 16)) if match[1] else _ESCAPES[match[2]], text
    )


def fingerprint(classes: list[str], rows: Rows) -> str:
    """Identifies what a run learns from, wherever it lies: classes, and path, label, size, bytes of readable images."""
    readable = [i for i, reason in enumerate(rows.reasons) if not reason]
    digest = blake2b(repr(classes).encode(), digest_size=16)
    digest.update("\n".join(escape(rows.paths[i]) for i in readable).encode())
    digest.update(np.ascontiguousarray(rows.numbers[readable, :4]).tobytes())
    return digest.hexdigest()


def header(classes: list[str], listing: str, rows: Rows) -> dict:
    """The manifest's first line."""
    return {
        "clever_fast manifest": VERSION,
        "fingerprint": fingerprint(classes, rows),
        "listing": listing,
        "files": len(rows.paths),
        "unreadable": sum(map(bool, rows.reasons)),
        "columns": COLUMNS[rows.numbers.shape[1]],
        "classes": classes,
    }


def save(file: Path, classes: list[str], listing: str, rows: Rows) -> dict:
    """Writes the manifest so that a reader finds the old one, the new one or none, and returns its header.

    Raises:
        OSError: the folder cannot be written.
    """
    first = header(classes, listing, rows)
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as out:
            out.write(json.dumps(first) + "\n")
            for path, numbers, reason in zip(rows.paths, rows.numbers, rows.reasons):
                out.write("\t".join([escape(path), *map(str, numbers.tolist()), escape(reason)]) + "\n")
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return first


def load(file: Path) -> tuple[dict, Rows] | None:
    """The header and rows of a manifest; None if there is none, or it is damaged or of another version."""
    try:
        with open(file, encoding="utf-8", newline="\n") as lines:
            header = json.loads(lines.readline())
            if header["clever_fast manifest"] != VERSION:
                return None
            parts = [line.partition("\t") for line in lines.read().split("\n")[:-1]]
        paths = [unescape(path) for path, _, _ in parts]
        parts = [rest.rpartition("\t") for _, _, rest in parts]
        reasons = [unescape(reason) for _, _, reason in parts]
        numbers = np.fromstring("\t".join(part for part, _, _ in parts), np.int64, sep="\t")
        return header, Rows(paths, numbers.reshape(header["files"], len(header["columns"]) - 2), reasons)
    except (OSError, ValueError, KeyError, TypeError):
        return None
