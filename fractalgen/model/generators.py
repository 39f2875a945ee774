"""The kinds of generators by the names that ``--generator_types`` knows."""

from __future__ import annotations

from fractalgen.config import Generator
from fractalgen.model.ar import Autoregressive
from fractalgen.model.mar import MaskedAutoregressive

GENERATORS: dict[Generator, type[Autoregressive] | type[MaskedAutoregressive]] = {
    "ar": Autoregressive,
    "mar": MaskedAutoregressive,
}
