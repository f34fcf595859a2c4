"""How far the pipelines' operations lie from torchvision's and PIL's, as the table in docs/augmentations.md.

    python -m clever_fast.benchmarks.checks.parity

Everything is seeded and needs no data. Differences are absolute, of pixel values from 0 to 255.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms.v2 import functional as tv

from clever_fast.benchmarks.checks import references
from clever_fast.benchmarks.checks.alone import row, run_crop, run_on_cpu, run_steps
from clever_fast.benchmarks.checks.references import JITTER
from clever_fast.benchmarks.measure import DOCS, asked_to_write, write_section
from clever_fast.benchmarks.photographs import photograph, write_jpegs
from clever_fast.environment import conditions
from clever_fast.pipelines.augmentations import (
    ColorJitter,
    Elastic,
    GaussianBlur,
    Grayscale,
    RandomResizedCrop,
    Rotation,
    Solarize,
)
from clever_fast.pipelines.augmentations.elastic import at_every_pixel, pixel_map, smooth_field
from clever_fast.pipelines.dali import fn, pipeline_def
from clever_fast.pipelines.decoding import decode, path_bytes
from clever_fast.pipelines.manifest import Manifest
from clever_fast.pipelines.policies import POLICIES, Policy
from clever_fast.pipelines.pretraining import MEAN, STD, PretrainingLoader
from clever_fast.pipelines.views import Canvas, View, by_crop

SIZE = 224
CPU, GPU = "CPU", "GPU's way, on a CPU"


@dataclass(frozen=True)
class Difference:
    operation: str
    reference: str
    mean: float
    p99: float  # 99th percentile over all values


def difference(operation: str, reference: str, ours, theirs) -> Difference:
    gap = np.concatenate([np.abs(np.asarray(a, np.float64) - np.asarray(b)).ravel() for a, b in zip(ours, theirs)])
    return Difference(operation, reference, float(gap.mean()), float(np.percentile(gap, 99)))


def operations(count: int = 16, seed: int = 0) -> list[Difference]:
    """Every operation alone, on `count` images."""
    generator = np.random.default_rng(seed)
    pictures = [photograph(generator, SIZE, SIZE) for _ in range(count)]
    images = [np.asarray(picture) for picture in pictures]
    uniform = generator.random

    def each(function: Callable, *columns) -> list[np.ndarray]:
        return [np.asarray(function(picture, *row)) for picture, *row in zip(pictures, *columns)]

    def both(name: str, augmentation, parameters: dict[str, np.ndarray], reference: str, theirs) -> list[Difference]:
        return [
            difference(f"{name} ({CPU})", reference, run_on_cpu(augmentation, images, parameters), theirs),
            difference(f"{name} ({GPU})", reference, run_steps(augmentation, images, parameters), theirs),
        ]

    rows = [_decoding(generator, count), *_crop(generator, count)]

    angle = Rotation().sample(uniform((count, 1)), SIZE)
    turned = each(lambda picture, angle: tv.rotate(picture, float(angle)), angle["angle"])
    rows += both("rotation", Rotation(), angle, "torchvision, nearest", turned)

    elastic = Elastic(probability=1.0)
    cut = elastic.sample(uniform((count, elastic.draws)), SIZE)
    moved = each(references.elastic, _elastic_maps(cut, SIZE))
    rows += both("elastic", elastic, cut, "torchvision's elastic of the same displacement", moved)
    rows += _color(pictures, images, generator)

    always = {"grayscale": np.ones(count, bool), "solarize": np.ones(count, bool)}
    rows += both("grayscale", Grayscale(), always, "PIL", each(lambda p: tv.to_grayscale(p, 3)))
    blur = GaussianBlur(1.0)
    sigma = blur.sample(uniform((count, blur.draws)), SIZE)
    taps = [2 * int(np.ceil(3 * s)) + 1 for s in sigma["blur_sigma"]]
    exact = each(lambda p, s, n: tv.gaussian_blur(p, [n, n], [float(s)] * 2), sigma["blur_sigma"], taps)
    boxes = each(lambda p, s: p.filter(ImageFilter.GaussianBlur(float(s))), sigma["blur_sigma"])
    rows += both("blur", blur, sigma, "torchvision", exact)
    rows.append(difference(f"blur ({CPU})", "PIL's boxes", run_on_cpu(blur, images, sigma), boxes))
    rows += both("solarize", Solarize(1.0), always, "PIL", each(ImageOps.solarize))
    return rows


def _decoding(generator: np.random.Generator, count: int) -> Difference:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(Path(folder), count, (500, 375), seed=int(generator.integers(1000)))

        @pipeline_def(batch_size=count, num_threads=1, device_id=None)
        def graph():
            return decode(fn.external_source(source=lambda: [path_bytes(path) for path in paths]), "cpu")

        (out,) = graph().run()
        return difference("decoding", "PIL", list(out), [np.asarray(Image.open(path)) for path in paths])


def _crop(generator: np.random.Generator, count: int) -> list[Difference]:
    pictures = [photograph(generator, 500, 375) for _ in range(count)]
    uniforms, rows = generator.random((count, RandomResizedCrop.draws)), []
    for interpolation in ("bicubic", "bilinear"):
        crop = RandomResizedCrop((0.05, 1.0), interpolation)
        region = crop.sample(uniforms, np.tile([500, 375], (count, 1)))
        corners = list(zip(region["crop_start"].astype(int), region["crop_end"].astype(int)))
        theirs = [np.asarray(references.crop(p, *ends, SIZE, interpolation)) for p, ends in zip(pictures, corners)]
        images = list(map(np.asarray, pictures))
        on_cpu = [crop.on_cpu(image, row(region, i), Canvas(SIZE)) for i, image in enumerate(images)]
        on_gpu = run_crop(View(1, SIZE, crop.scale, interpolation=interpolation), images, region)
        for graph, ours in ((CPU, on_cpu), (GPU, on_gpu)):
            rows.append(difference(f"crop and flip ({graph})", f"torchvision, {interpolation}", ours, theirs))
    return rows


def _color(pictures: list[Image.Image], images: list[np.ndarray], generator: np.random.Generator) -> list[Difference]:
    jitter, count = ColorJitter(probability=1.0), len(images)
    drawn = jitter.sample(generator.random((count, jitter.draws)), SIZE)
    neutral = {"jitter": drawn["jitter"], **{name: np.full_like(drawn[name], name != "hue") for name in JITTER}}
    rows = []
    for name in JITTER:
        one = neutral | {name: drawn[name]}
        theirs = [np.asarray(references.adjust(picture, name, value)) for picture, value in zip(pictures, drawn[name])]
        rows += [
            difference(f"{name} ({CPU})", "PIL", run_on_cpu(jitter, images, one), theirs),
            difference(f"{name} ({GPU})", "PIL", run_steps(jitter, images, one), theirs),
        ]
    theirs = [
        np.asarray(references.jitter(picture, {name: drawn[name][i] for name in JITTER}, generator))
        for i, picture in enumerate(pictures)
    ]
    rows += [
        difference(f"colour jitter ({CPU})", "PIL, random order", run_on_cpu(jitter, images, drawn), theirs),
        difference(f"colour jitter ({GPU})", "PIL, random order", run_steps(jitter, images, drawn), theirs),
        difference("colour jitter, PIL's own", "PIL, another order", *_two_orders(pictures, drawn, generator)),
    ]
    return rows


def _elastic_maps(cut: dict[str, np.ndarray], size: int, seed: int = 0) -> list[np.ndarray]:
    """(size, size, 2) for every view: the (x, y) pixel that each one shows."""
    canvas = Canvas(size, at_every_pixel(smooth_field(seed)))
    return [np.stack(pixel_map(row(cut, i), canvas), axis=-1) for i in range(len(cut["elastic"]))]


def _two_orders(pictures, drawn, generator) -> list[list[np.ndarray]]:
    return [
        [np.asarray(references.jitter(p, {n: drawn[n][i] for n in JITTER}, generator)) for i, p in enumerate(pictures)]
        for _ in range(2)
    ]


def whole_views(policy: Policy, count: int = 16) -> Difference:
    """All crops of `count` images through the whole pipeline, against PIL and torchvision with the same parameters."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        names = [path.name for path in write_jpegs(Path(folder), count, (500, 375))]
        sizes, labels = np.tile(np.array([500, 375], np.int32), (count, 1)), np.zeros(count, np.int64)
        manifest = Manifest(Path(folder), names, sizes, labels, ["photograph"], {}, "parity")
        loader = PretrainingLoader(manifest, policy, seed=0, batch_size=count, dtype="float32")
        indices, batches = next(iter(loader))
        loader.close()
        drawn = loader.sampler.parameters(indices, 0)
        pictures = [Image.open(manifest.root / names[index]) for index in indices]
        views = [view for view in policy.views for _ in range(view.count)]
        ours, theirs = [], []
        for crop, view, parameters in zip(by_crop(batches, count), views, drawn, strict=True):
            maps = [None] * count
            if "elastic" in parameters:
                coins = parameters["elastic"]
                maps = [pixels if on else None for on, pixels in zip(coins, _elastic_maps(parameters, view.size))]
            ours += list(crop * STD + MEAN)
            for i, picture in enumerate(pictures):
                theirs.append(references.whole_crop(picture, view, row(parameters, i), generator, maps[i]))
    return difference(f"all crops of {policy.name}", "PIL and torchvision, jitter in random order", ours, theirs)


def table(rows: list[Difference]) -> str:
    found = conditions()
    lines = ["| operation | against | mean | 99th percentile |", "|---|---|---|---|"]
    lines += [f"| {row.operation} | {row.reference} | {row.mean:.2f} | {row.p99:.1f} |" for row in rows]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join(lines) + f"\n\nMeasured on {found['date']} on a CPU with {versions}.\nNot measured on a GPU.\n"


def main() -> None:
    write = asked_to_write(__doc__)
    made = table(operations() + [whole_views(policy) for policy in POLICIES.values()])
    print(made)
    if write:
        write_section(DOCS / "augmentations.md", "parity", made)


if __name__ == "__main__":
    main()
