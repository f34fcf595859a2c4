"""The memory of a CPU's batches: given again when the last view of it is gone, and not before."""

import numpy as np
import pytest
import torch

from clever_fast.pipelines.cpu_augment import Memory
from clever_fast.pipelines.resize import resize

SHAPE, FLOAT = (2, 3, 3, 3), np.dtype(np.float32)


def address(array):
    return array.ctypes.data


def test_memory_that_nobody_holds_is_given_again():
    memory = Memory()
    first = memory.array(SHAPE, FLOAT)
    second = memory.array(SHAPE, FLOAT)
    assert (first.shape, first.dtype) == (SHAPE, FLOAT)
    assert first.flags.writeable
    assert address(first) != address(second)
    place = address(first)
    del first
    assert address(memory.array((54,), FLOAT)) == place  # as many bytes
    other = memory.array((4,), FLOAT)
    assert address(other) not in (place, address(second))


def test_memory_is_kept_by_views_and_tensors():
    memory = Memory()
    array = memory.array(SHAPE, FLOAT)
    place, view = address(array), array[1:, :, ::-1].transpose(0, 3, 1, 2)
    tensor = torch.from_numpy(array)[:1].permute(0, 3, 1, 2)
    del array
    assert address(memory.array(SHAPE, FLOAT)) != place
    del view
    assert address(memory.array(SHAPE, FLOAT)) != place
    tensor.fill_(7)
    del tensor
    held = [memory.array(SHAPE, FLOAT) for _ in range(3)]
    assert place in map(address, held)


@pytest.mark.parametrize("shape", [(32, 32), (32, 24), (1, 32), (7, 1), (50, 40)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_resized_crop_is_contiguous_also_where_a_side_keeps_its_length(shape, interpolation):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    made = resize(image, 32, 32, interpolation)
    assert made.flags.c_contiguous
    if shape == (32, 32):
        assert (made == image).all()
