"""Tensors in a moat of NaN: a read past their end poisons the result, a write past it fills the moat."""

import torch
from torch import Tensor

WIDTH = 4096  # elements on each side, more than one block of a kernel


class Moat:
    """`inner` has the values, dtype and strides of a dense tensor, in the middle of NaNs."""

    def __init__(self, values: Tensor):
        size = values.numel()
        self.memory = torch.full((size + 2 * WIDTH,), torch.nan, dtype=values.dtype, device=values.device)
        self.inner = self.memory[WIDTH : WIDTH + size].as_strided(values.shape, values.stride(), WIDTH)
        self.inner.copy_(values)

    def intact(self) -> bool:
        return bool(self.memory[:WIDTH].isnan().all() and self.memory[-WIDTH:].isnan().all())
