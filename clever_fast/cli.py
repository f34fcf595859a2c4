"""`clever-fast`: one command a module of `clever_fast.commands`, imported when it is called."""

import sys
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

from clever_fast.errors import UserError

COMMANDS = {
    "demo": "synthesize images, pretrain a small CLeVER, resume it, evaluate it, and show what happened",
    "pretrain": "pretrain a recipe on a folder of images, or go on where it stopped",
    "watch": "follow runs in the terminal, also finished ones, side by side",
    "launch": "print a job file for SLURM that runs a command on many nodes, requeued until it is done",
    "replay": "do the step at which a run was not finite again, and name what was so first",
    "evaluate knn": "k-NN accuracy of a run's features, against an untrained encoder and raw pixels",
    "export": "write a run's or a released checkpoint's encoder as safetensors, for timm, or as ONNX",
    "show attention": "draw what a ViT's class token attends to in the last block",
    "show pca": "draw the first three principal components of patch features as colours",
    "show neighbours": "draw images with their nearest neighbours by each part of the features",
    "recipes": "list the recipes with their epochs, policy and expected cost",
    "index": "decode every image of a folder once and list what is unreadable",
    "profile": "time the parts of a step, trace it, list its costliest kernels, run nsys and ncu",
    "doctor": "check the machine and a data folder, with a remedy for each fault",
    "preview": "draw the crops of each augmentation policy on one sheet",
    "synthesize": "make a labelled set of images to try things on",
    "convert cifar10": "turn CIFAR-10's official archive into class folders of images",
}


def main(words: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 for a run that failed, 2 for input that the user can mend."""
    words = sys.argv[1:] if words is None else words
    try:
        return _run(words) or 0
    except UserError as error:
        print(f"clever-fast: {error}", file=sys.stderr)
        return 2


def _run(words: list[str]) -> Any:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        from clever_fast import __version__

        print(__version__)
        return 0
    name = next((n for n in COMMANDS if words[: len(n.split())] == n.split()), None)
    if name is None:
        raise UserError(f"no command {' '.join(words[:2])!r}; the commands are {', '.join(COMMANDS)}")
    module, rest = import_module(f"clever_fast.commands.{name.split()[0]}"), words[len(name.split()) :]
    function = getattr(module, name.split()[-1])
    if name in ("pretrain", "profile", "launch", "watch"):  # they parse their words themselves
        return function(rest)
    from clever_fast.configuration import Parser

    parser = Parser(prog=f"clever-fast {name}")
    parser.add_function_arguments(function, as_positional=name.split()[0] not in ("evaluate", "export", "show"))
    return function(**parser.parse_args(_with_values(function, rest)).as_dict())


def _with_values(function: Callable, words: list[str]) -> list[str]:
    """`--flag` alone becomes `--flag=true`, for the parameters that are true or false."""
    flags = {f"--{name}" for name, parameter in signature(function).parameters.items() if parameter.annotation is bool}
    nexts = [*words[1:], "--"]
    return [f"{w}=true" if w in flags and after.startswith("-") else w for w, after in zip(words, nexts, strict=False)]


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: clever-fast COMMAND [options]",
            "",
            *lines,
            "",
            "clever-fast COMMAND --help tells its options.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
