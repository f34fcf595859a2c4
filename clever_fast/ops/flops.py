"""Floating-point operations of the scans' kernels, for torch's FlopCounterMode, which cannot look into them.

An addition, multiplication, division, exponential or logarithm is one. Importing this module registers the formulas;
the operators work without, as torch's counter takes a while to import.
"""

from math import prod

import torch
from torch.utils.flop_counter import register_flop_formula

from clever_fast.ops import extension


def scan(elements: int, S: int) -> int:
    """The forward pass over so many (image, channel, position): 7 an element and 7 for each of its S states.

    An element: t = log(1 + exp(delta + bias)), t u, + D u. A state: exp(t A) h + (t u) B, + C h.
    """
    return elements * (7 + 7 * S)


def scan_backward(elements: int, S: int) -> int:
    """The backward pass, which runs the recurrence again: 12 an element and 22 for each of its states.

    An element: t (4), its slope (2), t u, dD (2), du, ddelta, dbias. A state: h (5), dC (2), dh (2), through the decay
    (2), dA (2), dt (4), du (3), dB (2).
    """
    return elements * (12 + 22 * S)


def selective_scan(u, delta, A, *_rest, **_options) -> int:
    return scan(prod(u), A[0])


def selective_scan_backward(dy, u, delta, A, *_rest, **_options) -> int:
    return scan_backward(prod(u), A[0])


def cross_scan(x, low, weight, A, *_rest, **_options) -> int:
    """Four scans, the expansion of delta (2 R an element), the sum of the outputs (1). The projection counts itself."""
    elements, R = 4 * prod(x), weight[1]
    return scan(elements, A[1]) + elements * (2 * R + 1)


def cross_scan_backward(dy, x, low, weight, A, *_rest, **_options) -> int:
    """Four scans, the expansion again and its two gradients (2 R each), the sum of dx (1)."""
    elements, R = 4 * prod(x), weight[1]
    return scan_backward(elements, A[1]) + elements * (6 * R + 1)


if not extension.missing:
    for formula in (selective_scan, selective_scan_backward, cross_scan, cross_scan_backward):
        register_flop_formula(getattr(torch.ops.clever_fast, formula.__name__))(formula)
