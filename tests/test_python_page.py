"""Every example of docs/python.md runs, and what it trains is resumed and loaded again."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import clever_fast as cf
from clever_fast import checkpoint

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- test: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
SMALL = re.compile(r"(?<!batch_size=8, )epochs=2\)")  # 24 images are less than the recipe's batch
FOLDERS = {"pretrain": "a", "method": "agreement", "backbone": "small_net", "loader": "noise", "policy": "upright"}


@pytest.fixture
def example(monkeypatch, tmp_path, images):
    """Runs an example as a module of its own, in a folder with images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(images)

    def run(name: str) -> ModuleType:
        file = tmp_path / f"example_{name}.py"
        file.write_text(SMALL.sub("epochs=2, batch_size=8)", EXAMPLES[name]))
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        spec.loader.exec_module(module)
        return module

    return run


def test_every_example_is_tested():
    assert EXAMPLES.keys() == FOLDERS.keys() | {"ops"}
    assert PAGE.count("```python") == len(EXAMPLES) + 1  # the first one only imports


@pytest.mark.parametrize("name", FOLDERS)
def test_an_example_trains_and_its_run_loads(example, name):
    module = example(name)
    folder = Path("runs") / FOLDERS[name]
    state = checkpoint.load(folder / checkpoint.NEWEST)
    assert state["epoch"] == 2
    assert cf.Recipe.from_dict(state["recipe"]).as_dict() == module.recipe.as_dict()
    encoder = cf.load_encoder(folder)
    images = torch.randn(2, 3, encoder.size, encoder.size)
    assert encoder(images).shape == (2, encoder.embed_dim)


def test_a_run_of_a_class_that_is_not_imported_is_refused(example, monkeypatch):
    example("method")
    monkeypatch.delitem(sys.modules, "example_method")
    with pytest.raises(cf.UserError, match="import example_method before"):
        cf.load_encoder("runs/agreement")


def test_the_losses_give_gradients(example):
    assert torch.isfinite(example("ops").student.grad).all()
