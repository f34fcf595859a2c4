"""Run by test_train.py under torchrun and alone: six steps of a small ViT, and its weights before them.

Arguments: the method, the images, the run's folder and, to leave earlier, a number of steps.
"""

import sys
from pathlib import Path

import torch

from clever_fast import distributed
from clever_fast.acceleration import accelerator
from clever_fast.recipe import Execution, Run
from clever_fast.train import build, train

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.recipes import small_vit

method, data, folder = sys.argv[1], *map(Path, sys.argv[2:4])
execution = Execution(device="cpu", precision="fp32", threads=1)
initial = build(small_vit(method), accelerator(execution)).method.state_dict()
stop_after = int(sys.argv[4]) if sys.argv[4:] else None
train(small_vit(method), execution, Run(data=data, run=folder, log_every=1, stop_after=stop_after))
if distributed.is_main():
    torch.save(initial, folder / "initial.pth")
distributed.stop()
