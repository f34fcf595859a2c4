"""Reading and decoding files, in the pipeline and alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clever_fast.pipelines.dali import Pipeline, fn, types


def path_bytes(path: Path | str) -> np.ndarray:
    """A path as the uint8 array that the pipeline takes."""
    return np.frombuffer(str(path).encode(), np.uint8)


def decode(paths, device: str, *, hw_decoder_load: float = 0.65, preallocate: tuple[int, int] = (0, 0)):
    """Node of uint8 HWC RGB images, turned upright as their EXIF says, from a node of path bytes.

    device: "cpu", or "gpu" for nvJPEG. hw_decoder_load: share of a batch for the hardware decoder, if there is one.
    preallocate: width and height in pixels that the GPU decoder reserves memory for; it grows on demand.
    """
    encoded = fn.io.file.read(paths)
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


def find_broken(files: dict[int, Path], device_id: int | None) -> dict[int, str]:
    """Those of `files` that cannot be decoded, with the reason, by the same keys. Decodes them one by one."""
    broken = {}
    pending = list(files)
    while pending:
        source = iter([path_bytes(files[key]) for key in pending])
        pipeline = Pipeline(batch_size=1, num_threads=1, device_id=device_id, prefetch_queue_depth=1)
        with pipeline:
            paths = fn.external_source(source=source, batch=False, dtype=types.UINT8, ndim=1)
            pipeline.set_outputs(decode(paths, "cpu" if device_id is None else "gpu"))
        while pending:
            key = pending.pop(0)
            try:
                pipeline.run()
            except RuntimeError:  # the pipeline is beyond use from here on
                broken[key] = _reason(files[key])
                break
    return broken


def _reason(path: Path) -> str:
    if not path.exists():
        return "the file is gone"
    return "cannot be decoded" if path.stat().st_size else "the file is empty"
