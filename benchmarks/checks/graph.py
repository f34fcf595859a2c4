"""An operation run alone, on arrays: its nodes in a graph, or its function of one image."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from clever_fast.pipelines.augmentations.elastic import at_every_pixel, smooth_field
from clever_fast.pipelines.dali import fn, pipeline_def, types
from clever_fast.pipelines.views import Augmentation, Canvas


def run(
    build: Callable, images: list[np.ndarray], parameters: dict[str, np.ndarray], *, device_id: int | None = None
) -> list[np.ndarray]:
    """What the nodes of build(images, parameters, canvas) make of uint8 HWC arrays, in a pipeline of their own.

    parameters: one row per image. The canvas is of the first image's size, with the elastic field of seed 0.
    """
    device = "cpu" if device_id is None else "gpu"
    names = list(parameters)

    @pipeline_def(batch_size=len(images), num_threads=1, device_id=device_id, enable_conditionals=True)
    def graph():
        pixels = fn.external_source(source=lambda: images, batch=True, layout="HWC", device=device)
        arrays = fn.external_source(
            source=lambda: [np.ascontiguousarray(parameters[name]) for name in names], num_outputs=len(names)
        )
        field = types.Constant(smooth_field(0), device=device, layout="HWC")
        return build(pixels, dict(zip(names, arrays)), Canvas(len(images[0]), device, elastic_field=field))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The external source node")  # that some parameters are not used
        pipeline = graph()
        pipeline.build()
    (out,) = pipeline.run()
    return [np.array(sample) for sample in (out if device == "cpu" else out.as_cpu())]


def run_on_cpu(
    augmentation: Augmentation, images: list[np.ndarray], parameters: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """The same by augmentation.on_cpu."""
    canvas = Canvas(len(images[0]), "cpu", at_every_pixel(smooth_field(0)))
    return [augmentation.on_cpu(image, row(parameters, i), canvas) for i, image in enumerate(images)]


def row(parameters: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """The parameters of one image of a batch."""
    return {name: array[index] for name, array in parameters.items()}
