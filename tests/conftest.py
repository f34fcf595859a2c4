"""Fixtures shared by all tests: a small folder of labelled JPEGs, and recipes small enough for two cores."""

import contextlib
import ctypes
import json
import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tests.images import photograph


def _finds_a_gpu() -> bool:
    """Whether CUDA's driver sees one, as torch will; asked of the driver, because this file must not import torch."""
    with contextlib.suppress(OSError):
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return False


if not _finds_a_gpu():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported, whoever imports it first

# not on every machine with a GPU
OPTIONAL = (
    "nvidia.dali",
    "jsonargparse",
    "moto",
    "scipy",
    "sklearn",
    "torchvision",
    "onnx",
    "onnxruntime",
    "tensorboard",
)
CLASSES, PER_CLASS = ("bars", "discs", "waves"), {"train": 8, "val": 4}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ of three classes; 24 and 12 images of varying sizes."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in PER_CLASS.items():
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                width, height, seed = rng.integers(40, 72, 3)
                photograph(width, height, seed).save(folder / f"{i}.jpg", quality=90)
    return root


@pytest.fixture(scope="session")
def small():
    """`tests.recipes.small`, imported late so that tests of light modules stay light."""
    from tests import recipes

    return recipes.small


@pytest.fixture
def fault(request: pytest.FixtureRequest):
    """`fault(fault, happened, lost)`: a row of docs/faults.md, written where pytest was given --faults FILE."""
    from clever_fast.benchmarks.measure import append
    from clever_fast.environment import conditions

    path, test = request.config.getoption("--faults"), request.node.nodeid

    def record(fault: str, happened: str, lost: str) -> None:
        if path:
            append(path, {"test": test, "fault": fault, "happened": happened, "lost": lost, **conditions()})

    return record


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=Path, help="JSON lines that tests of faults add their records to")
    parser.addoption("--seconds", type=Path, help="JSON file of the seconds of each test file, slowest first")


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Says which files take the time: `--durations` by test hides a file of many short ones."""
    if not (path := config.getoption("--seconds")):
        return
    seconds: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                name = report.nodeid.split("::")[0]
                seconds[name] = seconds.get(name, 0.0) + report.duration
    slowest = dict(sorted(((name, round(s, 1)) for name, s in seconds.items()), key=lambda item: -item[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(slowest, indent=1) + "\n")
    terminalreporter.section("slowest files, seconds of a core")
    for name, s in list(slowest.items())[:10]:
        terminalreporter.line(f"{s:8.1f}  {name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that record a fault are marked; without a GPU, the tests that need one are skipped, not failed."""
    for item in items:
        if "fault" in getattr(item, "fixturenames", ()):
            item.add_marker("fault")
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """A file of tests that cannot be imported without one of the `OPTIONAL` packages is skipped where it is missing."""
    report = yield
    if report.failed:
        for name in filter(_is_missing, OPTIONAL):
            if f"No module named '{name.split('.')[0]}" in str(report.longrepr):
                report.outcome, report.longrepr = "skipped", (str(collector.path), None, f"Skipped: needs {name}")
                break
    return report


def _is_missing(package: str) -> bool:
    try:
        import_module(package)
    except ModuleNotFoundError:
        return True
    return False
