"""Schedules against the arrays of DINO's released code, rebuilt here with numpy."""

import numpy as np
import pytest

from clever_fast import schedules


def dino_cosine(base, final, epochs, per_epoch, warmup_epochs=0):
    warmup = np.linspace(0, base, warmup_epochs * per_epoch)
    steps = np.arange(epochs * per_epoch - warmup_epochs * per_epoch)
    return np.concatenate([warmup, final + 0.5 * (base - final) * (1 + np.cos(np.pi * steps / len(steps)))])


@pytest.mark.parametrize("values", [(1e-3, 1e-6, 20, 7, 10), (0.04, 0.4, 5, 11, 0), (0.996, 1.0, 3, 4, 0)])
def test_cosine_is_dinos(values):
    base, final, epochs, per_epoch, warmup = values
    ours = [
        schedules.cosine(s, steps=epochs * per_epoch, start=base, end=final, warmup_steps=warmup * per_epoch)
        for s in range(epochs * per_epoch)
    ]
    np.testing.assert_allclose(ours, dino_cosine(*values), rtol=1e-12, atol=1e-15)


def test_teacher_temperature_rises_linearly_and_stays():
    ours = [schedules.linear_epochs(e, start=0.02, end=0.05, epochs=4) for e in range(6)]
    np.testing.assert_allclose(ours, [*np.linspace(0.02, 0.05, 4), 0.05, 0.05])
    assert schedules.linear_epochs(0, start=0.02, end=0.05, epochs=0) == 0.05
