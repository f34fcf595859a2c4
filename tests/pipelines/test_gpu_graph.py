"""The GPU graphs on a GPU in name only: what DALI itself checks while it constructs and runs them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clever_fast.pipelines.perturbations import PERTURBATIONS
from tests.idle_gpu import patch

dali = pytest.importorskip("nvidia.dali.backend_impl")


def test_every_augmentation_runs_on_a_gpu_whose_kernels_do_nothing(images, tmp_path):
    if not (shutil.which("cc") and shutil.which("nm") and patch.runtime_functions(dali.__file__)):
        pytest.skip("needs cc, nm, and a build of DALI that names its functions")
    environment = patch.build(tmp_path)
    program = Path(patch.__file__).with_name("graphs.py")
    done = subprocess.run([sys.executable, program, images], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, launches = done.stdout.splitlines()
    globals_, locals_ = ["8x64x64x3:FLOAT16"] * 2, ["8x32x32x3:FLOAT16"] * 4
    expected = [f"caug_plus {' '.join(globals_ + locals_)}"] * 3 + [f"moco_caug_plus {' '.join(globals_)}"] * 3
    for name in PERTURBATIONS:  # 24 images
        expected += [f"{name} 16x64x64x3:FLOAT", f"{name} 8x64x64x3:FLOAT"]
    assert lines == expected
    assert int(launches) > 1000
