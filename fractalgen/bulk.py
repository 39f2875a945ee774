"""Many samples: drawn in parts that do not need each other, one after the other or on a cluster."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, NamedTuple

from fractalgen.seeds import stream

if TYPE_CHECKING:
    from fractalgen.api import FractalGen

SIZE = 256  # samples of a part: so many are in memory at a time
ALONE = threading.Lock()
"""For workers that have threads: PyTorch's number of threads, on which rounding may depend, is that of the process."""


class Part(NamedTuple):
    """Samples ``first`` to ``first + size - 1``, drawn with a seed of their own."""

    first: int
    size: int
    seed: int


def parts(num_samples: int, seed: int) -> list[Part]:
    """The parts of so many samples; the seed of the first one is ``seed`` itself."""
    return [
        Part(first, min(SIZE, num_samples - first), stream(seed, number) if number else seed)
        for number, first in enumerate(range(0, num_samples, SIZE))
    ]


def load_model(checkpoint: str | None, name: str | None, device: str) -> FractalGen:
    """The model that the flags ``--checkpoint``, ``--model`` and ``--device`` name."""
    # Imported here and not above: torch takes seconds, and mistakes should be answered at once.
    from fractalgen.api import load_pretrained
    from fractalgen.checkpoint import find_model
    from fractalgen.devices import resolve_device

    return load_pretrained(find_model(checkpoint, name), resolve_device(device))


loaded_model = functools.lru_cache(maxsize=1)(load_model)
"""The model that a process draws one part after the other from."""
