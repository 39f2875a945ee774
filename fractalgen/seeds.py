"""Seeds of independent streams of random numbers."""

from __future__ import annotations

import numpy as np


def stream(*numbers: int) -> int:
    """A seed for the random stream named by non-negative ``numbers``; streams of different names are independent."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
