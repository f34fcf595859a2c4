"""Run by test_train.py under torchrun and alone: six steps of a small ViT, and its weights before them.

Arguments: the method, the images, the run's folder and, to leave earlier, a number of steps.
"""

import sys
from pathlib import Path

import torch

from clever_fast import distributed
from clever_fast.accelerator import Accelerator
from clever_fast.options import Execution, Run
from clever_fast.train import train
from clever_fast.train_state import TrainState

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.recipes import small_vit

method, data, folder = sys.argv[1], *map(Path, sys.argv[2:4])
execution = Execution(device="cpu", precision="fp32", threads=1)
initial = TrainState(small_vit(method), Accelerator.from_execution(execution)).method.state_dict()
stop_after = int(sys.argv[4]) if sys.argv[4:] else None
train(small_vit(method), execution, Run(data=data, folder=folder, log_every=1, stop_after=stop_after))
if distributed.is_main():
    torch.save(initial, folder / "initial.pth")
distributed.stop()
