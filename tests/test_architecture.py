"""The tree is a list of layers: imports point down, DALI is known in two places, and importing costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"errors", "ranges"},
    {"bar", "page", "synthetic", "ops", "distributed", "schedules", "pipelines"},
    {"models"},
    {"methods"},
    {"recipe"},
    {"acceleration", "stopping", "loggers", "collapse", "launch", "watching"},
    {"console"},
    {
        "data",
        "optimization",
        "checkpoint",
        "export",
        "weights",
        "metrics",
        "curves",
        "pace",
        "failure",
        "writer",
        "resume",
    },
    {"reporting"},
    {"train", "evaluate", "show"},
    {"recipes", "cost"},
    {"benchmarks", "configuration", "doctor", "report", "profiling", "tuning", "sweeps", "replay"},
    {"commands"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FOLDERS = ("clever_fast", "pipelines", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "clever_fast" else parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(path: Path) -> set[str]:
    """The modules of this project that a file imports, by their first name below the package."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("clever_fast.")} - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = module_of(path)
    assert here in LEVEL, f"{here} has no layer: add it to the list"
    for name in own(path) & LEVEL.keys():
        assert LEVEL[name] <= LEVEL[here], f"{path.name} ({here}) imports {name}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dali_is_known_to_the_pipelines_and_torch_is_not(path):
    names, here = imports(path), module_of(path)
    if here == "pipelines":
        assert not any(name.split(".")[0] in ("torch", "torchvision") for name in names)
    elif here != "benchmarks":
        assert not any(name.startswith("nvidia") for name in names)
        loaders = {"clever_fast.pipelines.pretraining", "clever_fast.pipelines.evaluation"}
        assert here == "data" or not names & loaders or "torch" not in names


def test_the_loop_fits_on_two_screens():
    assert len((ROOT / "clever_fast" / "train.py").read_text().splitlines()) < 200


def test_files_are_small():
    for path in FILES:
        limit = 400 if module_of(path) in ("ops", "models") else 250
        assert len(path.read_text().splitlines()) <= limit, path


PROBE = """
import sys, time
import torch
begin = time.perf_counter()
import clever_fast
seconds = time.perf_counter() - begin
assert not {"nvidia.dali", "triton", "timm"} & sys.modules.keys(), "imported too much"
print(seconds)
"""


def test_importing_is_fast_and_loads_nothing_heavy():
    answer = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True).stdout
    assert float(answer) < 0.2


def test_pipelines_have_one_name():
    answer = subprocess.run([sys.executable, "-c", "import pipelines"], capture_output=True, text=True, cwd=ROOT)
    assert "import clever_fast.pipelines" in answer.stderr
