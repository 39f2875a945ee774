"""Which degree of a key a pitch is: what is learned in one key serves in all.

Degrees 1 to 12 are semitones above the tonic of a major key, 13 to 24 of a minor key; 0: no key is asked for.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

DEGREES = 25


def lowest_degree(key: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The degree of pitch 0, a C, in keys by their labels: 1 to 12 major, from C on, 13 to 24 minor, 0 for none."""
    return torch.where(key > 0, (key - 1) // 12 * 12 + (1 - key) % 12 + 1, 0)


def raised(degree: Int[Tensor, "*n"], semitones: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The degree so many semitones higher."""
    return torch.where(degree > 0, (degree - 1) // 12 * 12 + (degree - 1 + semitones) % 12 + 1, 0)
