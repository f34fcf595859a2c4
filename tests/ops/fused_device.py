"""Where the fused ops are tested: on a GPU where there is one, else in Triton's interpreter. Import it before them."""

import os

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MARK = [pytest.mark.gpu] if DEVICE == "cuda" else []  # so that `-m gpu` runs them where they run for real
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels' module is imported
