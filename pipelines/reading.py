"""The one reader of image files outside the pipelines' graphs: the pixels that DALI gives, or why there are none."""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clever_fast.errors import UserError

MOST_PIXELS = 2**29 // 3  # 512 MiB of RGB; Pillow, which crops on a CPU, takes no image above this either
DIM = 4096  # values of 12-bit data in a 16-bit file lie below
EXIF_ORIENTATION, QUARTER_TURNS = 0x112, (5, 6, 7, 8)
JPEG_SCAN = b"\xda"  # the marker before a JPEG's pixels
SIGNATURES = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"GIF8": "GIF",
}


def open_file(path: Path | str) -> BinaryIO:
    """A regular file, open for reading. A FIFO or a device, which may never answer, is refused.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(None, "it is a folder, a pipe or a device, not a file", str(path))
    return os.fdopen(number, "rb")


def read_pixels(data: bytes, name: str) -> np.ndarray:
    """An encoded image as training sees it: (H, W, 3) uint8 RGB, turned upright as its EXIF says.

    Values of 16 bits are scaled by 255/65535 and rounded, floats by 255; alpha is dropped.

    Args:
        data: the encoded image.
        name: of its file, for the message.

    Raises:
        UserError: it cannot be decoded; says why, in the words of `clever-fast index`.
    """
    pixels, reason = _decode(data)
    if pixels is None:
        raise UserError(f"cannot read the image {name}: {reason}")
    if pixels.dtype == np.uint16:
        return np.rint(pixels * np.float32(255 / 65535)).astype(np.uint8)
    if pixels.dtype != np.uint8:
        return np.rint(pixels * 255).clip(0, 255).astype(np.uint8)
    return pixels


def read_file(path: Path) -> np.ndarray:
    """The pixels of an image file; see `read_pixels`."""
    try:
        with open_file(path) as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror}") from None
    return read_pixels(data, str(path))


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image file in pixels, after EXIF rotation, out of its header.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open_file(path) as file:
            width, height, reason = header_reader()(file.read())
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror}") from None
    if reason:
        raise UserError(f"cannot read the image {path}: {reason}")
    return width, height


def is_dim(data: bytes) -> bool:
    """Whether an encoded image has 16 bits a value and uses 12 of them at most: it is all but black then."""
    codec = _codec()
    try:
        deep = codec.CodeStream(data).dtype == np.uint16
    except RuntimeError:
        return False
    pixels = _decode(data)[0] if deep else None
    return pixels is not None and 0 < pixels.max() < DIM


def decoder() -> Callable[[bytes], tuple[int, int, str]]:
    """A function of an encoded image -> (width, height, reason) for many threads, which decodes it.

    Each thread has its own decoder with one image at a time: on two cores that is 1.8 times as fast as one decoder with
    two threads, and memory holds no more than one image per thread.
    """
    _codec()

    def examine(data: bytes) -> tuple[int, int, str]:
        pixels, reason = _decode(data, deep=False)
        return (0, 0, reason) if pixels is None else (pixels.width, pixels.height, "")

    return examine


def header_reader() -> Callable[[bytes], tuple[int, int, str]]:
    """A function of an encoded image -> (width, height, reason) that reads its header alone, 50 times as fast.

    It agrees with `decoder` on every sound image; damage behind the header goes unnoticed.
    """
    codec = _codec()

    def examine(data: bytes) -> tuple[int, int, str]:
        if not data:
            return 0, 0, "empty file"
        try:
            stream = codec.CodeStream(data)
            width, height = stream.width, stream.height
        except RuntimeError:
            return 0, 0, _reason(data)
        if reason := _too_large(width, height):
            return 0, 0, reason
        return (height, width, "") if _lies(data) else (width, height, "")

    return examine


@contextmanager
def silent_codecs() -> Iterator[None]:
    """Drops what the codecs write on the file descriptor of stderr: several lines a bad file, through the bar."""
    with _silence:
        if _silence.depth == 0:
            _silence.kept = os.dup(2)
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        _silence.depth += 1
    try:
        yield
    finally:
        with _silence:
            _silence.depth -= 1
            if _silence.depth == 0:
                os.dup2(_silence.kept, 2)
                os.close(_silence.kept)


class _Silence:
    """How many threads want the file descriptor of stderr to be silent, and where it leads otherwise."""

    def __init__(self) -> None:
        self.depth, self.kept, self._lock = 0, -1, threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_silence, _local = _Silence(), threading.local()


def _decode(data: bytes, *, deep: bool = True):
    """The decoded image, None where there is none, and the reason; `deep`: as an array of the file's own type."""
    if not data:
        return None, "empty file"
    codec = _codec()
    if not hasattr(_local, "decoder"):
        _local.decoder = codec.Decoder(
            device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
            backends=[codec.Backend(codec.BackendKind.CPU_ONLY)],
            max_num_cpu_threads=1,
        )
    with silent_codecs():
        try:
            stream = codec.CodeStream(data)
            if reason := _too_large(stream.width, stream.height):
                return None, reason
        except RuntimeError:
            return None, _reason(data)
        image = _local.decoder.decode(stream, params=_any_depth()) if deep else _local.decoder.decode(stream)
    if image is None:
        return None, _reason(data)
    return (np.asarray(image) if deep else image), ""


def _codec():
    try:
        from nvidia import nvimgcodec
    except ImportError:
        raise UserError(
            "nvImageCodec, which decodes the images, is not installed: pip install 'clever_fast[cuda12]' or '[cuda13]'"
        ) from None
    return nvimgcodec


@cache
def _any_depth():
    return _codec().DecodeParams(allow_any_depth=True)


def _too_large(width: int, height: int) -> str:
    if width * height <= MOST_PIXELS:
        return ""
    return f"{width:,} x {height:,} pixels; {MOST_PIXELS:,} pixels are the most that an image may have"


def _lies(data: bytes) -> bool:
    """Whether its EXIF has the image turned by a quarter, which swaps width and height."""
    from PIL import Image

    if not _may_have_exif(data):  # Pillow takes as long as everything else together
        return False
    with suppress(Exception):  # what Pillow cannot read is taken as it lies
        return Image.open(io.BytesIO(data)).getexif().get(EXIF_ORIENTATION, 1) in QUARTER_TURNS
    return False


def _may_have_exif(data: bytes) -> bool:
    if data.startswith(b"\x89PNG"):
        return b"eXIf" in data
    if not data.startswith(b"\xff\xd8"):
        return True
    offset = 2
    while data[offset : offset + 1] == b"\xff":  # from one segment of the JPEG to the next
        if data[offset + 1 : offset + 2] == JPEG_SCAN:
            return False
        if data[offset + 4 : offset + 8] == b"Exif":
            return True
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return True  # not as it should be: ask Pillow


def _reason(data: bytes) -> str:
    """Why an image cannot be decoded: its kind, where it is sound, else that it is damaged."""
    kind = next((kind for signature, kind in SIGNATURES.items() if data.startswith(signature)), None)
    if data[4:8] == b"ftyp":
        return "AVIF or HEIC, which DALI does not decode: convert it to JPEG or PNG"
    if mode := _sound_mode(data):
        named = kind or "image"
        called = f"{named} of {mode}" if kind not in ("GIF", None) else named
        return f"{called}, which DALI does not decode: convert it to JPEG or PNG"
    return f"truncated or corrupt {kind}" if kind else f"not an image, starts with {data[:12]!r}"


def _sound_mode(data: bytes) -> str:
    """What the values of an image that Pillow reads whole are; empty where it does not."""
    from PIL import Image

    kinds = {"1": "1-bit values", "I": "32-bit integers", "F": "floats"}
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(io.BytesIO(data)) as image:
            if _too_large(*image.size):
                return ""
            image.load()
            return kinds.get(image.mode, f"mode {image.mode}")
    return ""
