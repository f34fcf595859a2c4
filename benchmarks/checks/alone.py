"""An operation run alone, on arrays: as a CPU does it, or by what a GPU would call, on a CPU."""

from __future__ import annotations

import numpy as np
import torch

from clever_fast.ops import deformation, photometry
from clever_fast.pipelines.augmentations.elastic import at_every_pixel, border_gain, smooth_field
from clever_fast.pipelines.dali import fn, pipeline_def
from clever_fast.pipelines.device_steps import device_steps
from clever_fast.pipelines.view_batches import cut
from clever_fast.pipelines.views import Augmentation, Canvas, CentralView, View


def run_on_cpu(
    augmentation: Augmentation, images: list[np.ndarray], parameters: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """What augmentation.on_cpu makes of uint8 HWC arrays of one size, with the elastic field of seed 0.

    parameters: one row per image.
    """
    canvas = Canvas(len(images[0]), at_every_pixel(smooth_field(0)))
    return [augmentation.on_cpu(image, row(parameters, i), canvas) for i, image in enumerate(images)]


def run_steps(
    augmentation: Augmentation, images: list[np.ndarray], parameters: dict[str, np.ndarray], device: str = "cpu"
) -> list[np.ndarray]:
    """The same by the ops that a GPU runs; on a CPU by their references."""
    crops = torch.from_numpy(np.stack(images)[None]).to(device)
    field = torch.from_numpy(at_every_pixel(smooth_field(0))).to(device)
    for step in device_steps((augmentation,)):
        values = torch.from_numpy(step.parameters(parameters, len(images))).to(device)
        if step.op == "deformation":
            crops = deformation(crops, values, field, torch.from_numpy(border_gain(crops.shape[2])).to(device))
        else:
            crops = photometry(crops, values, out=torch.empty_like(crops[0]).permute(0, 3, 1, 2))
            crops = crops.permute(0, 2, 3, 1)[None]
    return list(crops[0].cpu().numpy())


def run_crop(view: View | CentralView, images: list[np.ndarray], parameters: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The regions that a GPU's graph cuts for a view of one crop, by the same operator's version for a CPU."""

    @pipeline_def(batch_size=len(images), num_threads=1, device_id=None)
    def graph():
        pixels = fn.external_source(source=lambda: images, batch=True, layout="HWC")
        corners = [parameters["crop_start"], parameters["crop_end"]]
        return cut(view, pixels, [fn.external_source(source=lambda: corners, num_outputs=2)])

    (out,) = graph().run()
    return [np.array(sample) for sample in out]


def row(parameters: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """The parameters of one image of a batch."""
    return {name: array[index] for name, array in parameters.items()}
