"""What depends on the processor, its threads, the locale or the user passes under other ones too."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.full, pytest.mark.skipif(sys.platform != "linux", reason="the settings are of x86-64 Linux")]

SENSITIVE = (  # sums, tolerances, bits, texts, files
    "tests/ops/test_scan.py",
    "tests/ops/test_losses.py",
    "tests/models/test_vmamba.py",
    "tests/models/test_backbones.py",
    "tests/methods",
    "tests/test_train.py",
    "tests/test_optimization.py",
    "tests/pipelines/test_augmentations.py",
    "tests/evaluate/test_knn.py",
    "tests/checkpoint",
    "tests/test_cli.py",
)
SETTINGS = {
    "no vector instructions in torch": {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2 in torch": {"ATEN_CPU_CAPABILITY": "avx2"},
    "AVX2 in oneDNN": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1 in oneDNN": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "MKL's compatible sums": {"MKL_CBWR": "COMPATIBLE"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "three threads": {"OMP_NUM_THREADS": "3"},
    "four threads": {"OMP_NUM_THREADS": "4"},
    "threads that never spin": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    "the C locale": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"},
    "no home": {"HOME": None},
    "a narrow terminal without colours": {"COLUMNS": "40", "NO_COLOR": "1", "TERM": "dumb"},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
}


def run(files: tuple[str, ...], changes: dict[str, str | None], folder: Path, **options) -> None:
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **{k: v for k, v in changes.items() if v is not None}}
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={folder / 'tests'}"]
    words += ["-m", "not gpu and not full and not soak", *files]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_sensitive_tests_pass_under(setting, tmp_path):
    run(SENSITIVE, SETTINGS[setting], tmp_path)


def test_the_sensitive_tests_pass_on_a_busy_machine(tmp_path):
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        run(SENSITIVE, {}, tmp_path)
    finally:
        for process in busy:
            process.kill()


def test_the_sensitive_tests_pass_for_another_user_than_root(tmp_path):
    if os.getuid() != 0:
        pytest.skip("the tests run as another user than root already")
    with contextlib.suppress(KeyError):
        nobody = pwd.getpwnam("nobody")
    reads = subprocess.run([sys.executable, "-c", "import torch"], user="nobody", capture_output=True, cwd="/")
    if reads.returncode:
        pytest.skip("another user cannot read this Python")
    folder = tmp_path / "nobody"
    folder.mkdir()
    for path in (folder, *folder.parents[:3]):
        path.chmod(0o755)
    shutil.chown(folder, nobody.pw_uid, nobody.pw_gid)
    run(SENSITIVE, {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}, folder, user="nobody")
