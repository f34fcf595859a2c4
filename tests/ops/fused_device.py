"""Where the fused ops are tested: on a GPU where there is one, else in Triton's interpreter (see conftest.py)."""

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MARK = [pytest.mark.gpu] if DEVICE == "cuda" else []  # so that `-m gpu` runs them where they run for real
