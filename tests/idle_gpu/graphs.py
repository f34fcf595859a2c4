"""Run by test_gpu_graph.py on the GPU in name only: all augmentations' graphs on a folder of images.

Prints the shapes and types of each batch, a line each, and at last the number of launches.
"""

import ctypes
import sys
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.idle_gpu import patch


def main(folder: Path) -> None:
    stand_in = patch.install()
    from clever_fast.pipelines.evaluation import EvaluationLoader
    from clever_fast.pipelines.manifest import open_manifest
    from clever_fast.pipelines.perturbations import PERTURBATIONS
    from clever_fast.pipelines.policies import CAUG_PLUS, MOCO_CAUG_PLUS
    from clever_fast.pipelines.pretraining import PretrainingLoader

    manifest = open_manifest(folder)
    for policy, local_crops in ((CAUG_PLUS, 4), (MOCO_CAUG_PLUS, 0)):
        small = policy.with_crops(global_size=64, local_size=32, local_crops=local_crops)
        options = {"preallocate": (100, 100), "affinity": True}
        loader = PretrainingLoader(manifest, small, seed=0, batch_size=8, device_id=0, **options)
        for _, crops in islice(loader, 3):
            tell(policy.name, crops)
        loader.close()
    options = {"size": 64, "batch_size": 16, "device_id": 0, "dtype": "float32"}
    for perturbation in PERTURBATIONS.values():
        for _, images in EvaluationLoader(manifest, perturbation=perturbation, **options):
            tell(perturbation.name, [images])
    print(ctypes.c_long.in_dll(stand_in, "launches").value)


def tell(name: str, outputs) -> None:
    assert all(type(x).__name__ == "TensorListGPU" for x in outputs)
    print(name, *("x".join(map(str, x.as_tensor().shape())) + f":{x.dtype.name}" for x in outputs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
