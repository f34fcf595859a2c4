"""Image files of every kind that a folder may hold, readable and not."""

import io

import cv2
import numpy as np
from PIL import Image


def photograph(width: int = 80, height: int = 60, seed: int = 0) -> Image.Image:
    """A smooth random RGB image."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated(orientation: int, kind: str = "JPEG") -> bytes:
    """80 x 60 pixels as stored, with an EXIF orientation of 1 to 8; 5 to 8 swap width and height."""
    exif = Image.Exif()
    exif[0x112] = orientation
    return encode(photograph(), kind, exif=exif)


def readable() -> dict[str, bytes]:
    image, jpeg = photograph(), encode(photograph())
    deep = np.asarray(image).astype(np.uint16) * 257
    return {
        "plain.jpg": jpeg,
        "upper.JPEG": jpeg,
        "cmyk.jpg": encode(image.convert("CMYK")),
        "grey.jpg": encode(image.convert("L")),
        "progressive.jpg": encode(image, progressive=True),
        "trailing.jpg": jpeg + b"xx",
        "one.jpg": encode(image.resize((1, 1))),
        "one.png": encode(image.resize((1, 1)), "PNG"),
        "wide.jpg": encode(image.resize((10_000, 10))),
        "png.jpg": encode(image, "PNG"),
        "jpg.png": jpeg,
        "rgba.png": encode(image.convert("RGBA"), "PNG"),
        "palette.png": encode(image.convert("P"), "PNG"),
        "rgb16.png": cv2.imencode(".png", deep)[1].tobytes(),
        "grey16.png": encode(Image.fromarray(deep[..., 0]), "PNG"),
        "lossy.webp": encode(image, "WEBP"),
        "plain.bmp": encode(image, "BMP"),
        "plain.tif": encode(image, "TIFF"),
        "plain.ppm": encode(image, "PPM"),
        "plain.jp2": encode(image, "JPEG2000"),
        **{f"exif{i}.jpg": rotated(i) for i in range(1, 9)},
        **{f"exif{i}.png": rotated(i, "PNG") for i in (3, 6)},
    }


def unreadable() -> dict[str, bytes]:
    image, jpeg, png = photograph(), encode(photograph()), encode(photograph(), "PNG")
    return {
        "short.jpg": jpeg[:-2],
        "half.jpg": jpeg[: len(jpeg) // 2],
        "header.jpg": jpeg[:300],
        "empty.jpg": b"",
        "html.jpg": b"<html><body>404</body></html>",
        "animation.gif": encode(image.convert("P"), "GIF"),
        "gif.jpg": encode(image.convert("P"), "GIF"),
        "short.png": png[:-20],
        "half.png": png[: len(png) // 2],
        "half.webp": encode(image, "WEBP")[:400],
    }
