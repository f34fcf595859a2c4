"""Nothing that comes from outside is run: no unsafe loader or shell in the tree, and files that try are refused."""

import ast
import pickle
from pathlib import Path

import pytest
import torch

from clever_fast import cli
from tests.malicious import Malicious

ROOT = Path(__file__).parents[1]
FILES = [
    path for folder in ("clever_fast", "pipelines", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
]
FORBIDDEN = {
    *("eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "shelve.open", "yaml.unsafe_load", "yaml.full_load"),
    *("extract", "extractall", "shutil.unpack_archive"),  # archives are read member by member
}


def offences(source: str) -> list[str]:
    """The calls in a source file that may run or unpack what others wrote, as LINE: NAME."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        unsafe = {
            "torch.load": given.get("weights_only") != "True",
            "np.load": given.get("allow_pickle", "False") != "False",
            "yaml.load": "Safe" not in given.get("Loader", " ".join(map(ast.unparse, node.args[1:]))),
        }
        if {name, name.rpartition(".")[2] if "extract" in name else name} & FORBIDDEN or unsafe.get(name):
            found.append(f"{node.lineno}: {name}")
        if given.get("shell", "False") != "False":
            found.append(f"{node.lineno}: {name} with a shell")
    return found


def test_the_tree_has_no_call_that_runs_what_others_wrote():
    assert len(FILES) > 100
    found = {str(path.relative_to(ROOT)): wrong for path in FILES if (wrong := offences(path.read_text()))}
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "os.system('ls')",
        "pickle.load(file)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "subprocess.run('ls', shell=True)",
        "tarfile.open(path).extractall()",
        "archive.extract(member)",
    ],
)
def test_the_search_finds(line):
    assert offences(line)


@pytest.mark.parametrize(
    "line",
    ["model.eval()", "torch.load(path, weights_only=True)", "yaml.load(t, Loader=SafeLoader)", "tar.extractfile(a)"],
)
def test_the_search_lets_pass(line):
    assert not offences(line)


def outside(folder: Path) -> dict[str, Path]:
    """Files of every form that a command reads; each makes the file `was_here` if it is run."""
    folder.mkdir()
    (folder / "run").mkdir()
    torch.save({"format": 1, "recipe": {}, "step": 1, "teacher": {"a": Malicious()}}, folder / "run" / "checkpoint.pth")
    (folder / "raw.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    (folder / "raw.safetensors").write_bytes(pickle.dumps(Malicious()))
    (folder / "archive.tar.gz").write_bytes(pickle.dumps(Malicious()))
    (folder / "recipe.yaml").write_text("!!python/object/apply:os.system ['touch was_here']\n")
    (folder / "config.yaml").write_text("recipe: !!python/object/apply:os.system ['touch was_here']\n")
    return {path.name: path for path in folder.rglob("*") if path.is_file()} | {"run": folder / "run"}


@pytest.mark.parametrize(
    "words",
    [
        "pretrain --recipe dino_resnet10_cifar10 --data IMAGES --run {run} --execution.device cpu",
        "pretrain --recipe {recipe.yaml} --data IMAGES --run new",
        "pretrain --config {config.yaml} --data IMAGES --run new",
        "evaluate knn --run {run} --data IMAGES",
        "evaluate knn --weights {raw.pth} --data IMAGES",
        "export --run {run} --out encoder.safetensors",
        "export --weights {checkpoint.pth} --out encoder.safetensors",
        "export --weights {raw.safetensors} --out encoder.safetensors",
        "show pca --weights {raw.pth} --data IMAGES --out pca.png",
        "convert cifar10 {archive.tar.gz} out",
    ],
)
def test_every_reader_refuses_what_would_run(words, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths = {"{" + name + "}": str(path) for name, path in outside(tmp_path / "outside").items()}
    filled = [paths.get(word, word).replace("IMAGES", str(images)) for word in words.split()]
    assert cli.main(filled) == 2
    assert not list(tmp_path.rglob("was_here"))
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_what_the_files_hold_would_run(tmp_path, monkeypatch):
    """So the test above can fail."""
    monkeypatch.chdir(tmp_path)
    command, words = Malicious().__reduce__()
    assert command(*words) == 0
    assert (tmp_path / "was_here").exists()
