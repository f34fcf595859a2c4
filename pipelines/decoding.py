"""Reading and decoding images, in the pipeline and alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from clever_fast.pipelines.dali import Pipeline, fn, types


def path_bytes(path: Path | str) -> np.ndarray:
    """A path as the uint8 array that the pipeline takes."""
    return np.frombuffer(os.fsencode(path), np.uint8)


def decode(
    images, device: str, *, in_files: bool = True, hw_decoder_load: float = 0.65, preallocate: tuple[int, int] = (0, 0)
):
    """Node of uint8 HWC RGB images, turned upright as their EXIF says, from a node of path bytes or of encoded images.

    device: "cpu", or "gpu" for nvJPEG. in_files: `images` are paths. hw_decoder_load: share of a batch for the hardware
    decoder, if there is one. preallocate: width and height in pixels that the GPU decoder reserves memory for; it grows
    on demand.
    """
    encoded = fn.io.file.read(images) if in_files else images
    if device == "cpu":
        return fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
    width, height = preallocate
    return fn.decoders.image(
        encoded,
        device="mixed",
        output_type=types.RGB,
        hw_decoder_load=hw_decoder_load,
        preallocate_width_hint=width,
        preallocate_height_hint=height,
    )


def find_broken(read: Callable[[int], bytes], rows: Iterable[int], device_id: int | None) -> dict[int, str]:
    """Those of `rows` that cannot be read or decoded, with the reason. Decodes them one by one.

    The CPU is asked first, and the GPU only where that explains nothing: a GPU that is out of memory or has failed
    decodes no image at all, and then none is called broken.

    Raises:
        ConnectionError: a store does not answer.
    """
    broken, sound = {}, {}
    for row in rows:
        try:
            sound[row] = np.frombuffer(read(row), np.uint8)
        except FileNotFoundError:
            broken[row] = "the file is gone"
        except ConnectionError:
            raise
        except OSError as error:
            broken[row] = error.strerror or str(error)
    broken |= {row: "the file is empty" for row, data in sound.items() if not len(data)}
    sound = {row: data for row, data in sound.items() if len(data)}
    undecodable = _undecodable(sound, None)
    if not (broken or undecodable) and device_id is not None:
        undecodable = _undecodable(sound, device_id)
        if len(undecodable) == len(sound):
            return {}
    return broken | dict.fromkeys(undecodable, "cannot be decoded")


def _undecodable(images: dict[int, np.ndarray], device_id: int | None) -> list[int]:
    """The keys of those encoded images that a device cannot decode."""
    pending, refused = list(images), []
    while pending:
        source = iter([images[row] for row in pending])
        pipeline = Pipeline(batch_size=1, num_threads=1, device_id=device_id, prefetch_queue_depth=1)
        with pipeline:
            encoded = fn.external_source(source=source, batch=False, dtype=types.UINT8, ndim=1)
            pipeline.set_outputs(decode(encoded, "cpu" if device_id is None else "gpu", in_files=False))
        while pending:
            row = pending.pop(0)
            try:
                pipeline.run()
            except RuntimeError:  # the pipeline is beyond use from here on
                refused.append(row)
                break
    return refused
