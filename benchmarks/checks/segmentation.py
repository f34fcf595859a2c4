"""Speed of `evaluate video` and `evaluate saliency` on generated pictures, beside the plain way of segmenting a clip.

    python -m clever_fast.benchmarks.checks.segmentation video
    python -m clever_fast.benchmarks.checks.segmentation saliency

The network is an untrained ViT-S/16: speed does not depend on its weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clever_fast.accelerator import Accelerator, spell_attention_out
from clever_fast.benchmarks.checks import plain_video
from clever_fast.benchmarks.measure import DOCS, append, write_section
from clever_fast.encoders.encoder import TrainedEncoder
from clever_fast.environment import conditions
from clever_fast.evaluate.segmentation import saliency, tokencut, video
from clever_fast.evaluate.segmentation.clips import Clip
from clever_fast.evaluate.segmentation.maps import feature_maps, normalised
from clever_fast.evaluate.segmentation.masks import read_image, write_mask
from clever_fast.evaluate.segmentation.propagation import Propagation, propagate
from clever_fast.models import BACKBONES
from clever_fast.monitoring.metrics import peak_memory_mib
from clever_fast.options import Execution
from clever_fast.performance.timing import summary
from clever_fast.synthetic import clips

RESULTS = Path(__file__).resolve().parents[1] / "results" / "segmentation.jsonl"
NETWORK, SIZE, OBJECTS = "vit_small_patch16_224", 480, 3
FRAMES = 67  # DAVIS-2017 val: 1,999 in 30 clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("video", "saliency"))
    parser.add_argument("--frames", type=int, default=FRAMES, help="of the clip; the first 8 have fewer sources")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines that the record is added to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = (time_video if options.what == "video" else time_saliency)(Path(folder), options)
    record = {"benchmark": options.what, "network": NETWORK, **measured, **conditions()}
    print(json.dumps(record, indent=1))
    append(options.results, record)
    if options.results == RESULTS:
        records = [json.loads(text) for text in RESULTS.read_text().splitlines()]
        newest = {record["benchmark"]: record for record in records}
        write_section(DOCS / "segmentation.md", "speed", table(newest))


def encoder() -> TrainedEncoder:
    return TrainedEncoder(BACKBONES[NETWORK].build(0.0), {"all": slice(None)}, 224, "untrained")


def time_video(folder: Path, options: argparse.Namespace) -> dict:
    """Seconds a frame from files to files, in rounds of all ways, the peak memory after the first of each, and parts.

    The plain way sees one frame at a time in float32 and writes attention matrices out, as the released script does;
    "fused attention" is the same with torch's.
    """
    clip = draw_clip(folder, options.frames)
    size, settings = video.frame_size(clip, SIZE), Propagation()
    fast, plain = Accelerator.from_execution(Execution()), Accelerator.from_execution(Execution(precision="fp32"))
    released = encoder()
    spell_attention_out(released.network)
    maps = {
        "fast": feature_maps(encoder(), "all", fast),
        "plain": feature_maps(released, "all", plain),
        "plain, fused attention": feature_maps(encoder(), "all", plain),
    }

    def segmented(name: str) -> None:
        if name == "fast":
            masks = video.segment(clip, maps[name], size, settings, fast)
        else:
            masks = plain_video.segment(clip, maps[name], size, settings)
        for frame, mask in zip(clip.frames, masks, strict=True):
            write_mask(folder / f"{frame.stem}.png", mask)

    seconds: dict[str, list[float]] = {name: [] for name in maps}
    peaks: dict[str, float] = {}
    for _ in range(options.rounds):
        for name in maps:
            seconds[name].append(timed(lambda n=name: segmented(n)) / options.frames)
            peaks.setdefault(name, peak_memory_mib(fast.device))
    count = min(16, options.frames)
    features = torch.randn(count, 384, size[0] // 16, size[1] // 16, device=fast.device)
    labels = torch.rand(OBJECTS + 1, *features.shape[2:], device=fast.device)
    on_cpu = features.cpu(), labels.cpu()
    parts = {
        "fast propagation": timed(lambda: list(propagate(features, labels, settings))),
        "plain propagation": timed(lambda: list(plain_video.propagate(iter(on_cpu[0]), on_cpu[1], settings))),
        "plain neighbourhood": timed(lambda: plain_video.neighbourhood(*features.shape[2:], settings.radius)),
    }
    parts["plain propagation"] -= parts["plain neighbourhood"]  # once a clip
    images = normalised([read_image(path) for path in clip.frames[:4]], size)
    for name, at_once in (("fast", 2), ("plain", 1), ("plain, fused attention", 1)):
        parts[f"{name} features"] = timed(lambda n=name, c=at_once: [maps[n](i) for i in images.split(c)]) / 4
    for name in ("fast propagation", "plain propagation"):
        parts[name] /= count
    return {
        "device": str(fast),
        "frame": f"{clip_size()[0]} x {clip_size()[1]}, seen at {size[1]} x {size[0]}",
        "frames": options.frames,
        "seconds_per_frame": {name: summary(values) for name, values in seconds.items()},
        "peak_mib": peaks,
        "parts": parts,
    }


def clip_size() -> tuple[int, int]:
    return round(SIZE * clips.ASPECT), SIZE


def draw_clip(folder: Path, frames: int) -> Clip:
    paths, mask = [], folder / "mask.png"
    for number, (image, labels) in enumerate(clips.clip(0, 0, frames=frames, objects=OBJECTS, size=SIZE)):
        paths.append(folder / f"{number:05d}.jpg")
        image.save(paths[-1], quality=92)
        if number == 0:
            write_mask(mask, labels)
    return Clip("generated", paths, mask)


def time_saliency(folder: Path, options: argparse.Namespace) -> dict:
    """Images a second from files to maps, with and without the solver, and the parts of it in seconds an image."""
    pairs = draw_pairs(folder, options.images)
    accelerator = Accelerator.from_execution(Execution())
    maps, rates = feature_maps(encoder(), "all", accelerator, keys=True), {}
    for solver in (False, True):
        seconds = [timed(lambda s=solver: cut(pairs, maps, accelerator, s)) for _ in range(options.rounds)]
        rates["with solver" if solver else "TokenCut"] = summary([options.images / value for value in seconds])
    images = normalised([read_image(pair.image) for pair in pairs[:4]], (SIZE, SIZE))
    weights = tokencut.graph(features_with_an_object(maps(images)))
    parts = {
        "features": timed(lambda: maps(images)) / 4,
        "eigenproblem": timed(lambda: tokencut.second_eigenvector(weights)) / 4,
        "eigenproblem, all of them": timed(lambda: torch.linalg.eigh(weights[0])),
    }
    about = {"device": str(accelerator), "image": f"{SIZE} x {SIZE}", "images": options.images}
    return {**about, "images_per_second": rates, "parts": parts}


def cut(pairs: list[saliency.Pair], maps: Callable, accelerator: Accelerator, solver: bool) -> None:
    for found in saliency.cut_all(pairs, maps, 16, accelerator, largest=640, solver=solver):
        saliency.measures(saliency.read_truth(found.pair.truth), found.final)


def features_with_an_object(features: torch.Tensor) -> torch.Tensor:
    """An untrained network's positions are all alike; noise and a region make graphs as a trained one's are."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(features.shape, generator=generator).to(features)
    common = torch.randn(2, features.shape[1], 1, 1, generator=generator).to(features)
    made = noise + 0.6 * common[0]
    made[:, :, 8:20, 10:22] += 0.8 * common[1]
    return made


def draw_pairs(folder: Path, count: int) -> list[saliency.Pair]:
    pairs = []
    for number in range(count):
        image, mask = clips.still(0, number, size=SIZE)
        pair = saliency.Pair(folder / f"{number}.jpg", folder / f"{number}.png")
        left = (image.width - SIZE) // 2
        image.crop((left, 0, left + SIZE, SIZE)).save(pair.image, quality=92)
        Image.fromarray(np.ascontiguousarray(mask[:, left : left + SIZE]) * 255).save(pair.truth)
        pairs.append(pair)
    return pairs


def timed(work: Callable) -> float:
    with redirect_stdout(StringIO()):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return time.perf_counter() - begin


def table(newest: dict[str, dict]) -> str:
    lines = ["| what | | |", "|---|---|---|"]
    if r := newest.get("video"):
        fast, plain, fused = (row["median"] for row in r["seconds_per_frame"].values())
        parts = r["parts"]
        lines += [
            f"| a clip, {r['frame']}, {r['frames']} frames | as here | {fast:.3f} s a frame, peak "
            f"{r['peak_mib']['fast'] / 1024:.1f} GiB |",
            f"| | plain: as the released script | {plain:.3f} s a frame |",
            f"| | **plain / here** | **{plain / fast:.1f}** |",
            f"| | plain, but with torch's fused attention | {fused:.3f} s a frame, {fused / fast:.1f} times |",
            f"| of it the network | here / plain / plain with fused attention | {parts['fast features']:.3f} / "
            f"{parts['plain features']:.3f} / {parts['plain, fused attention features']:.3f} s |",
            f"| of it the propagation | here / plain | {parts['fast propagation']:.3f} / "
            f"{parts['plain propagation']:.3f} s |",
            f"| once a clip | plain: which positions are neighbours | {parts['plain neighbourhood']:.1f} s |",
        ]
    if r := newest.get("saliency"):
        rates, parts = r["images_per_second"], r["parts"]
        lines += [
            f"| an image, {r['image']} | TokenCut | {rates['TokenCut']['median']:.1f} images/s |",
            f"| | with the bilateral solver | {rates['with solver']['median']:.1f} images/s |",
            f"| of it the network | | {parts['features']:.3f} s |",
            f"| of it the eigenproblem | Lanczos | {parts['eigenproblem']:.3f} s |",
            f"| | all eigenvectors, for comparison | {parts['eigenproblem, all of them']:.3f} s |",
        ]
    last = list(newest.values())[-1]
    return "\n".join(lines) + (
        f"\n\nViT-S/16 on {last['device']}; {last['cores']} cores of an {last['cpu']}, {last['date']}, commit "
        f"{last['commit']}; torch {last['versions']['torch']}.\n"
    )


if __name__ == "__main__":
    main()
