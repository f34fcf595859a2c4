"""What decoding on a GPU gives, and what share nvJPEG, its hardware decoder and the host have in it.

    python -m clever_fast.benchmarks.decoder_sweep --out bench [--seconds 2]
    python -m clever_fast.benchmarks.decoder_sweep --dry           # what it would time; needs no GPU

Every setting is timed alone on JPEGs that it draws: the decoder and the whole loader, shares of the hardware decoder,
threads, images of 500 and 2,000 px. A rate that grows with the threads is bound by the host, one that grows with the
hardware's share by the multiprocessors, and one that grows with neither by the hardware. Not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np

from clever_fast.benchmarks.measure import append
from clever_fast.environment import conditions

HARDWARE_LOADS, THREADS = (0.0, 0.65, 1.0), (4, 16)
SIZES = ((500, 375), (2000, 1500))
BATCH, IMAGES = 128, 256


def settings(cores: int) -> Iterator[dict]:
    """What is timed: the decoder alone over all, then the loader's views on top of it at the usual size."""
    threads = sorted({min(cores, n) for n in THREADS})
    for size, count, load in product(SIZES, threads, HARDWARE_LOADS):
        yield {"what": "decoder", "size": size, "threads": count, "hw_decoder_load": load}
    for count, load in product(threads, HARDWARE_LOADS):
        yield {"what": "loader", "size": SIZES[0], "threads": count, "hw_decoder_load": load}


def decoder(folder: Path, setting: dict) -> Callable[[], object]:
    """A function that decodes a batch on the GPU."""
    from clever_fast.pipelines.dali import fn, pipeline_def
    from clever_fast.pipelines.decoding import decode

    files = [np.fromfile(path, np.uint8) for path in sorted(folder.rglob("*.jpg"))[:BATCH]]

    @pipeline_def(batch_size=BATCH, num_threads=setting["threads"], device_id=0)
    def graph():
        encoded = fn.external_source(source=lambda: files, batch=True)
        load = setting["hw_decoder_load"]
        return decode(encoded, "gpu", in_files=False, hw_decoder_load=load, preallocate=setting["size"])

    made = graph()
    made.build()
    return made.run


def loader(folder: Path, setting: dict) -> Callable[[], object]:
    """A function that makes a batch of CAUG_PLUS up to the hand-over to torch."""
    from clever_fast.pipelines.loader_options import LoaderOptions
    from clever_fast.pipelines.manifest import open_manifest
    from clever_fast.pipelines.policies import CAUG_PLUS
    from clever_fast.pipelines.pretraining import PretrainingLoader

    options = LoaderOptions(threads=setting["threads"], hw_decoder_load=setting["hw_decoder_load"])
    made = PretrainingLoader(open_manifest(folder), CAUG_PLUS, seed=0, batch_size=BATCH, device_id=0, options=options)
    batches = iter(made)
    return lambda: next(batches)


def rate(run: Callable[[], object], seconds: float) -> dict[str, float]:
    """Images per second and CPU milliseconds an image of a function that makes a batch and waits for it."""
    for _ in range(4):
        run()
    begin, used, batches = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < seconds:
        run()
        batches += 1
    images, taken = batches * BATCH, time.perf_counter() - begin
    return {"images_per_s": images / taken, "cpu_ms": 1e3 * (time.process_time() - used) / images}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder that decoder.jsonl is added to")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each setting")
    parser.add_argument("--dry", action="store_true", help="print the settings and time nothing")
    options = parser.parse_args()
    todo = list(settings(len(os.sched_getaffinity(0))))
    if options.dry:
        print("\n".join(map(json.dumps, todo)))
        return
    from clever_fast.benchmarks.photographs import write_jpegs

    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            write_jpegs(Path(folder) / str(size[0]) / "photograph", IMAGES if size == SIZES[0] else BATCH, size)
        for setting in todo:
            images, make = Path(folder) / str(setting["size"][0]), {"decoder": decoder, "loader": loader}
            made = make[setting["what"]](images, setting)
            row = {"benchmark": "decoder_sweep", **setting, **rate(made, options.seconds), **conditions()}
            append(options.out / "decoder.jsonl", row)
            print(f"{setting}: {row['images_per_s']:,.0f} images/s, {row['cpu_ms']:.2f} CPU ms an image", flush=True)


if __name__ == "__main__":
    main()
