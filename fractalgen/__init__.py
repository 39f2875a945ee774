"""FractalGen: a fractal generative model that composes piano music and shows every step of it.

The names below are loaded on first use, so that ``import fractalgen`` and ``fractalgen --help`` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractalgen.api import FractalGen
    from fractalgen.config import SamplingConfig
    from fractalgen.music.pianoroll import PianoRoll
    from fractalgen.trace import Trace

__version__ = "0.2.0.dev0"
__all__ = ["FractalGen", "PianoRoll", "SamplingConfig", "Trace"]

_HOMES = {
    "FractalGen": "fractalgen.api",
    "PianoRoll": "fractalgen.music.pianoroll",
    "SamplingConfig": "fractalgen.config",
    "Trace": "fractalgen.trace",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fractalgen' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
