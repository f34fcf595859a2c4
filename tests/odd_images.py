"""Small files of every odd kind that people's folders hold, from tags of orientation to a FIFO named .jpg."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

from tests.images import encode, photograph

KEPT_VALUES = "grey16.png", "grey12in16.png", "grey16.tif", "float32.tif"  # which Pillow's convert("RGB") cuts off
DIM = ("grey12in16.png",)


def sound() -> dict[str, bytes]:
    """Files that every path reads, by name."""
    image, frames = photograph(), [photograph(seed=seed) for seed in range(3)]
    grey = np.asarray(image.convert("L"))
    deep, floats = grey.astype(np.uint16), Image.fromarray(grey.astype(np.float32) / 255)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF"}
    turned = {f"exif6.{ending}": encode(image, kind, exif=_orientation(6)) for ending, kind in kinds.items()}
    several = {"save_all": True, "append_images": frames[1:]}
    return {
        **turned,
        "exif9.jpg": encode(image, exif=_orientation(9)),
        "exif0.jpg": encode(image, exif=_orientation(0)),
        "cmyk.jpg": encode(image.convert("CMYK")),
        "cmyk.tif": encode(image.convert("CMYK"), "TIFF"),
        "grey.jpg": encode(image.convert("L")),
        "grey.png": encode(image.convert("L"), "PNG"),
        "la.png": encode(image.convert("LA"), "PNG"),
        "bilevel.png": encode(image.convert("1"), "PNG"),
        "palette.png": encode(image.convert("P"), "PNG"),
        "rgba.png": encode(image.convert("RGBA"), "PNG"),
        "grey16.png": encode(Image.fromarray(deep * 257), "PNG"),
        "grey12in16.png": encode(Image.fromarray(deep * 16), "PNG"),
        "grey16.tif": encode(Image.fromarray(deep * 257), "TIFF"),
        "float32.tif": encode(floats, "TIFF"),
        "rgb16.png": cv2.imencode(".png", np.asarray(image).astype(np.uint16) * 257)[1].tobytes(),
        "rgb16.tif": cv2.imencode(".tif", np.asarray(image).astype(np.uint16) * 257)[1].tobytes(),
        "ycc444.jpg": encode(image, subsampling=0),
        "progressive.jpg": encode(image, progressive=True),
        "q1.jpg": encode(image, quality=1),
        "anim.webp": encode(frames[0], "WEBP", lossless=True, **several),
        "anim.png": encode(frames[0], "PNG", **several),
        "pages.tif": encode(frames[0], "TIFF", **several),
        "lzw.tif": encode(image, "TIFF", compression="tiff_lzw"),
        "jpeg_in.tif": encode(image, "TIFF", compression="jpeg"),
        "lossless.webp": encode(image, "WEBP", lossless=True),
        "a.jp2": encode(image, "JPEG2000"),
        "a.bmp": encode(image, "BMP"),
        "a.ppm": encode(image, "PPM"),
        "icc.jpg": encode(image, icc_profile=srgb),
        "icc_garbage.png": encode(image, "PNG", icc_profile=b"garbage" * 20),
        "wide.jpg": encode(photograph(6000, 3)),
        "tall.png": encode(photograph(3, 6000), "PNG"),
        "line.png": encode(Image.new("RGB", (30000, 1), (9, 90, 9)), "PNG"),
        "one.jpg": encode(Image.new("RGB", (1, 1), (9, 9, 9))),
        "ünï çødé 漢字.jpg": encode(image),
        "quo'te\"s & $pace.jpg": encode(image),
        "UPPER.JPG": encode(image),
        "tab\tname.jpg": encode(image),
        os.fsdecode(b"latin\xe9.jpg"): encode(image),
        "png_named.jpg": encode(image, "PNG"),
        "trailing.jpg": encode(image) + b"junk" * 1000,
        "damaged_middle.jpg": _damaged(encode(image, quality=90)),
    }


def unread() -> dict[str, tuple[bytes, str]]:
    """Files that no path reads, by name, and how the reason begins."""
    image, jpeg, png = photograph(), encode(photograph()), encode(photograph(), "PNG")
    wrong = bytearray(png)
    wrong[-20] ^= 0xFF
    return {
        "bilevel.tif": (encode(image.convert("1"), "TIFF"), "TIFF of 1-bit values, which DALI does not decode"),
        "int32.tif": (_int32(image), "TIFF of 32-bit integers, which DALI does not decode"),
        "anim.gif": (encode(image.convert("P"), "GIF"), "GIF, which DALI does not decode"),
        "gif_named.jpg": (encode(image.convert("P"), "GIF"), "GIF, which DALI does not decode"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated or corrupt JPEG"),
        "cut.jpg": (jpeg[:-2], "truncated or corrupt JPEG"),
        "cut.png": (png[:-30], "truncated or corrupt PNG"),
        "badcrc.png": (bytes(wrong), "truncated or corrupt PNG"),
        "empty.jpg": (b"", "empty file"),
        "html.jpg": (b"<html>404</html>", "not an image, starts with"),
        "claims60000.png": (_claims(60000), "60,000 x 60,000 pixels; 178,956,970 pixels are the most"),
    }


def draw(folder: Path) -> None:
    """Write all of them into a folder, and beside them what is no regular file."""
    folder.mkdir(parents=True)
    for name, data in (sound() | {name: data for name, (data, _) in unread().items()}).items():
        (folder / name).write_bytes(data)
    os.symlink("UPPER.JPG", folder / "link.jpg")
    os.symlink("nowhere.jpg", folder / "dangling.jpg")
    os.symlink("..", folder / "loop")
    os.mkdir(folder / "folder.jpg")
    os.mkfifo(folder / "fifo.jpg")
    for name in ("Thumbs.db", "._plain.jpg", ".DS_Store"):
        (folder / name).write_bytes(b"x" * 10)


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = value
    return exif


def _damaged(jpeg: bytes) -> bytes:
    """Bytes in the middle of the pixels that the decoder of training passes over and Pillow refuses."""
    middle, data = len(jpeg) // 2, bytearray(jpeg)
    data[middle : middle + 40] = b"\x13\xff" * 20
    return bytes(data)


def _int32(image: Image.Image) -> bytes:
    return encode(Image.fromarray(np.asarray(image.convert("L")).astype(np.int32) * 100), "TIFF")


def _claims(side: int) -> bytes:
    """A PNG whose header claims a square of so many pixels, and which holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    file = io.BytesIO(b"")
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)))
    file.write(chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))
    return file.getvalue()
