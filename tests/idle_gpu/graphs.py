"""Run by test_gpu_graph.py on the GPU in name only: the graphs of policies and perturbed test sets on a folder.

Prints what each batch consists of, a line each, and at last the number of launches.
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
    from clever_fast.pipelines.loader_options import LoaderOptions
    from clever_fast.pipelines.manifest import open_manifest
    from clever_fast.pipelines.perturbations import PERTURBATIONS
    from clever_fast.pipelines.policies import CAUG_PLUS, MOCO_CAUG_PLUS
    from clever_fast.pipelines.pretraining import PretrainingLoader

    manifest = open_manifest(folder)
    for policy, local_crops in ((CAUG_PLUS, 4), (CAUG_PLUS, 0), (MOCO_CAUG_PLUS, 0)):
        small = policy.with_crops(global_size=64, local_size=32, local_crops=local_crops)
        options = LoaderOptions(threads=2, preallocate=True, affinity=True)
        loader = PretrainingLoader(manifest, small, seed=0, batch_size=8, device_id=0, options=options)
        for _, views in islice(loader, 3):
            tell(policy.name, views)
        loader.close()
    options = {"size": 64, "batch_size": 16, "device_id": 0}
    for perturbation in PERTURBATIONS.values():
        for _, view in EvaluationLoader(manifest, perturbation=perturbation, **options):
            tell(perturbation.name, [view])
    print(ctypes.c_long.in_dll(stand_in, "launches").value)


def tell(name: str, views: list) -> None:
    assert all(type(view.crops).__name__ == "TensorListGPU" for view in views)
    print(name, *map(described, views))


def described(view) -> str:
    """The shape and type of a view's crops, then the steps and the shapes of their parameters."""
    crops = "x".join(map(str, view.crops.as_tensor().shape())) + f":{view.crops.dtype.name}"
    return ">".join([crops, *(f"{op}:{len(parameters)}" for op, parameters in view.steps)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
