"""The one library and the one package under five versions of torch, each in an environment of its own."""

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from clever_fast.ops import extension

ROOT = Path(__file__).parents[1]
# torchvision's release for each; torch 2.15 had none of its own yet, and timm gets on with the one before
VERSIONS = {"2.11": "0.26", "2.12": "0.27", "2.13": "0.28", "2.14": "0.29", "2.15": None}
# values and gradients of both operators, a VMamba's steps, a CLeVER that is stopped and resumed in the middle of epochs
PARTS = {
    "tests/ops/test_scan.py": "selective_scan_equals or cross_scan_equals or kernels_gradients or well_formed",
    "tests/models/test_vmamba.py": "train_alike",
    "tests/test_train.py": "bit_identical and clever",
}
ABOUT = """
import torch
from clever_fast.ops import extension
print(torch.__version__, extension.LIBRARY)
"""


@pytest.fixture
def environment(tmp_path):
    """Makes an environment of some packages and otherwise those of this one; returns its Python and variables."""

    def make(*packages: str) -> tuple[str, dict[str, str]]:
        here = tmp_path / "environment"
        venv.create(here)
        (own,) = here.glob("lib/python*/site-packages")
        # what is here and serves the other version too is not installed again
        (own / "base.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        python = str(here / "bin" / "python")
        install = [python, "-m", "pip", "install", "-q", *packages]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{' '.join(packages)} cannot be had here: {done.stderr.strip()[-200:]}")
        listing = [python, "-c", "import sys; print('\\n'.join(sys.path))"]
        sites = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
        # torch looks for NVIDIA's libraries beside itself, where those of this environment are not
        libraries = [str(path) for site in sites if site for path in Path(site).glob("nvidia/*/lib")]
        return python, os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries), "OMP_NUM_THREADS": "1"}

    yield make
    shutil.rmtree(tmp_path / "environment", ignore_errors=True)  # gigabytes


@pytest.mark.skipif(not extension.LIBRARY.exists(), reason="needs the library built from csrc")
@pytest.mark.parametrize(
    "version", [pytest.param(v, marks=pytest.mark.full if v == "2.11" else pytest.mark.soak) for v in VERSIONS]
)
def test_the_same_library_computes_and_trains_on_other_versions_of_torch(environment, version, fault):
    vision = [f"torchvision=={VERSIONS[version]}.*"] if VERSIONS[version] else []
    python, variables = environment(f"torch=={version}.*", *vision)

    def run(*words: str) -> str:
        done = subprocess.run([python, *words], capture_output=True, text=True, cwd=ROOT, env=variables)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    found, built = run("-c", ABOUT).split()
    assert found.startswith(f"{version}.")
    assert built == str(extension.LIBRARY)
    passed = 0
    for path, names in PARTS.items():
        said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", path, "-k", f"({names})", "-m", "not gpu")
        passed += int(said.split(" passed")[0].split()[-1])
        assert "skipped" not in said.splitlines()[-1], said[-500:]
    fault(
        f"torch {found.split('+')[0]}, with the library that was built once",
        f"{passed} tests passed: both operators and their gradients against the recurrence, a VMamba's steps, a "
        "CLeVER stopped twice and gone on with bit for bit",
        "nothing",
    )
