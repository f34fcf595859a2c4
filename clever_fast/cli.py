"""`clever-fast`: one command a module of `clever_fast.commands`, imported when it is called."""

import os
import sys
from importlib import import_module
from typing import Any

from clever_fast.environment import OPENMP_SPINS
from clever_fast.errors import UserError
from clever_fast.terminal import exit_code, interruptible, lasting_streams, leaving_at_once, stopped

COMMANDS = {
    "demo": "synthesize images, pretrain a small CLeVER, resume it, evaluate it, and show what happened",
    "pretrain": "pretrain a recipe on a folder of images, or go on where it stopped",
    "watch": "follow runs in the terminal, also finished ones, side by side",
    "replay": "do the step at which a run was not finite again, and name what was so first",
    "launch": "print a job file for SLURM that runs a command on many nodes, requeued until it is done",
    "sweep": "pretrain and evaluate every point of a grid over a recipe's fields; one table and one plot",
    "evaluate knn": "k-NN accuracy of a run's features, against an untrained encoder and raw pixels",
    "evaluate linear": "linear classification of frozen features, also on perturbed test images",
    "evaluate robustness": "all parts of the features under all perturbations, by k-NN and linear classifiers",
    "evaluate rotation": "what the features keep of an image's orientation",
    "evaluate semi": "train the whole network on 1 % and 10 % of the labels",
    "evaluate finetune": "train the whole network on all labels of a data set",
    "evaluate video": "video object segmentation with frozen features, on DAVIS or frames of your own",
    "evaluate saliency": "unsupervised saliency with TokenCut, on ECSSD, DUTS-TE, DUT-OMRON or images of your own",
    "show attention": "draw what a ViT's class token attends to in the last block",
    "show pca": "draw the first three principal components of patch features as colours",
    "show neighbours": "draw images with their nearest neighbours by each part of the features",
    "export": "write a run's or a released checkpoint's encoder as safetensors, for timm, or as ONNX",
    "recipes": "list the recipes with their epochs, policy and expected cost",
    "preview": "draw the crops of each augmentation policy on one sheet",
    "index": "decode every image of a folder once and list what is unreadable",
    "shard build": "write a folder of images as tar shards",
    "shard verify": "check every checksum, header and image of tar shards",
    "shard index": "list the samples of tar shards, also of other makers",
    "synthesize clips": "make clips of moving objects with exact masks, laid out as DAVIS and as ECSSD",
    "synthesize": "make a labelled set of images to try things on",
    "convert cifar10": "turn CIFAR-10's official archive into class folders of images",
    "doctor": "check the machine and a data folder, with a remedy for each fault",
    "profile": "time the parts of a step, trace it, list its costliest kernels, run nsys and ncu",
    "bench all": "time the loader, the step and both together for every backbone, and the kernels",
    "bench loader": "time the loader alone, on your images or on generated ones",
    "bench step": "time a training step on a fixed batch, the executions side by side",
    "bench epoch": "time an epoch of a folder and its three clocks; estimate ImageNet's epochs from it",
    "bench ops": "time the kernels against the bandwidth of a copy",
    "bench compare": "ratios of two sets of records, refused where conditions differ",
    "bench report": "one page with pictures of the records, and the tables of the docs",
}


def main(words: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 for a run that failed, 2 for input that the user can mend, 130, 143
    or 129 where SIGINT, SIGTERM or SIGHUP has stopped it."""
    words = sys.argv[1:] if words is None else words
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_SPINS)  # read when torch is imported
    with lasting_streams(), interruptible():
        try:
            return _run(words) or 0
        except UserError as error:
            if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes one says it
                print(f"clever-fast: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as error:
            code = exit_code(error)
            print(stopped(code - 128), end="", file=sys.stderr)
            return code
        except ConnectionError as error:  # a remote store that does not answer
            print(f"clever-fast: {error}", file=sys.stderr)
            return 1


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
        near = [n for n in COMMANDS if n.split()[0] == words[0]] or COMMANDS
        raise UserError(f"no command {' '.join(words[:2])!r}; the commands are {', '.join(near)}")
    with leaving_at_once():
        module, rest = import_module(f"clever_fast.commands.{name.split()[0]}"), words[len(name.split()) :]
    function = getattr(module, name.split()[-1])
    if name in ("pretrain", "profile", "sweep", "launch", "watch"):  # which hand words on, or take any number of them
        return function(rest)
    if name == "recipes" and not rest:  # at once: the parser of options takes torch
        return function()
    with leaving_at_once():
        from clever_fast.command_line import call

    return call(function, rest, prog=f"clever-fast {name}")


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
