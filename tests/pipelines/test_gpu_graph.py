"""The GPU graphs on a GPU in name only: what DALI itself checks while it constructs and runs them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clever_fast.pipelines.perturbations import PERTURBATIONS
from tests.idle_gpu import patch

STEPS = ">deformation:{0}>photometry:{0}"
EVALUATED = {
    **dict.fromkeys(("Orig", "CJ"), ">photometry:{0}"),
    "CJ+Flip": ">photometry:{0}>deformation:{0}>photometry:{0}",
    **dict.fromkeys(("CJ+Ro", "Ro", "ET"), STEPS),
    **{f"CJ+Ro+ET{alpha}": f"{STEPS}{STEPS}" for alpha in (50, 100, 150)},
}
dali = pytest.importorskip("nvidia.dali.backend_impl")


def test_every_augmentation_runs_on_a_gpu_whose_kernels_do_nothing(images, tmp_path):
    if not (shutil.which("cc") and shutil.which("nm") and patch.runtime_functions(dali.__file__)):
        pytest.skip("needs cc, nm, and a build of DALI that names its functions")
    environment = patch.build(tmp_path)
    program = Path(patch.__file__).with_name("graphs.py")
    done = subprocess.run([sys.executable, program, images], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, launches = done.stdout.splitlines()
    global_, local = "8x64x64x3:UINT8", "8x4x32x32x3:UINT8"
    first = f"caug_plus {global_}{STEPS.format(8)} {global_}{STEPS.format(8)} {local}{STEPS.format(32)}"
    moco = f"{global_}>photometry:8>deformation:8>photometry:8"
    two = first.rsplit(" ", 1)[0]  # the same policy without local crops
    expected = [first] * 3 + [two] * 3 + [f"moco_caug_plus {moco} {moco}"] * 3
    for name in PERTURBATIONS:  # 24 images
        expected += [f"{name} {n}x64x64x3:UINT8{EVALUATED[name].format(n)}" for n in (16, 8)]
    assert lines == expected
    assert int(launches) > 100
