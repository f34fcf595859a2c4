"""The tree is a list of layers: imports point down, DALI is known in two places, and importing costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"errors", "environment", "tracing", "progress", "schedules", "signals", "html_page", "synthetic", "terminal"},
    {"import_paths", "fields"},
    {"ops", "pipelines", "distributed"},
    {"models"},
    {"methods"},
    {"options"},
    {"recipes", "checkpoint", "accelerator", "optimization"},
    {"command_line", "data", "encoders"},
    {"nonfinite", "evaluate"},
    {"train_state", "show"},
    {"monitoring"},
    {"train", "performance"},
    {"replay", "sweeps"},
    {"benchmarks"},
    {"doctor"},
    {"commands"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FOLDERS = ("clever_fast", "pipelines", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py")


def room_of(path: Path) -> str:
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


def rooms_used(path: Path) -> set[str]:
    """The rooms of this project that a file imports from, by their first name below the package."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("clever_fast.")} & LEVEL.keys()


def test_imports_point_down():
    assert {room_of(path) for path in FILES} == LEVEL.keys(), "every module or folder has one layer"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}, which is not below {room_of(path)}"
        for path in FILES
        for name in rooms_used(path) - {room_of(path)}
        if LEVEL[name] >= LEVEL[room_of(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_contributing_shows_these_layers():
    rows = "\n".join(f"  {i}. {', '.join(sorted(layer))}" for i, layer in enumerate(LAYERS, 1))
    page = (ROOT / "CONTRIBUTING.md").read_text()
    shown = page.split("<!-- layers:begin -->\n")[1].split("  <!-- layers:end -->")[0]
    assert shown == rows + "\n", f"put these rows there:\n{rows}"


def test_dali_is_known_to_the_pipelines_and_torch_to_one_file_of_them():
    loaders = {"clever_fast.pipelines.pretraining", "clever_fast.pipelines.evaluation"}
    for path in FILES:
        names, room = imports(path), room_of(path)
        if room == "pipelines":
            knows_torch = any(name.split(".")[0] in ("torch", "torchvision") for name in names)
            assert knows_torch == (path.name == "resize.py"), path
        elif room != "benchmarks":
            assert not any(name.startswith("nvidia") for name in names), path
            assert room == "data" or not names & loaders or "torch" not in names, path


PROBE = """
import sys
import clever_fast
assert not {"torch", "numpy", "nvidia.dali", "triton", "timm"} & sys.modules.keys(), "the package imports too much"
import clever_fast.train
assert not {"nvidia.dali", "matplotlib", "cv2", "onnx", "tensorboard"} & sys.modules.keys(), "training imports too much"
"""


def test_importing_loads_only_what_is_needed():
    subprocess.run([sys.executable, "-c", PROBE], check=True, cwd=ROOT)


def test_pipelines_have_one_name():
    answer = subprocess.run([sys.executable, "-c", "import pipelines"], capture_output=True, text=True, cwd=ROOT)
    assert "import clever_fast.pipelines" in answer.stderr
