"""Run by test_nodes.py under torchrun: `pretrain` of a small ViT, whose rank 1 may be killed in its first life."""

import os
import signal
import sys
from pathlib import Path

from clever_fast import data, recipes
from clever_fast.cli import main
from clever_fast.models import BACKBONES

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.recipes import VIT, small_vit

images, folder, dies_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
original = data.PretrainingBatches.__iter__


def mortal(self):
    for number, batch in enumerate(original(self)):
        if number == dies_at and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch


data.PretrainingBatches.__iter__ = mortal
BACKBONES[VIT.name] = VIT  # so that a command line can name it
recipes.RECIPES["tiny"] = small_vit("dino")
execution = ["--execution.device", "cpu", "--execution.precision", "fp32", "--execution.threads", "1"]
words = ["--recipe", "tiny", "--data", images, "--run", folder, "--log_every", "1", "--save_every", "1", *execution]
sys.exit(main(["pretrain", *words]))
