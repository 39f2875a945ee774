"""What settings are made of: fields with a default, a help text and bounds, and the choices that several share."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from fractalgen.errors import UserError

Generator = Literal["ar", "mar"]
ScanOrder = Literal["column_major", "row_major"]
CfgSchedule = Literal["constant", "linear"]
MarOrder = Literal["random", "scan"]
Pedal = Literal["follow", "ignore"]
Precision = Literal["auto", "32", "bf16"]
View = Literal["process", "hierarchical", "levels", "density"]

MOST_LEVELS, MOST_BLOCKS, WIDEST, FARTHEST = 8, 256, 16_384, 4_096
"""Bounds of a model: what lies beyond them is a mistake, or a damaged checkpoint."""

DEFAULT_MODEL = "pop909-ar"
"""Name of the shipped model (fractalgen/assets/models/NAME.safetensors) that is used when none is named."""


def setting(default: Any, help: str, repeat: bool = False, instead_of: str = "") -> Any:
    """A dataclass field with its ``--help``; its flag may ``repeat``, or stand ``instead_of`` that of another field."""
    return field(default=default, metadata={"help": help, "repeat": repeat, "instead_of": instead_of})


class ConfigError(UserError):
    """A setting that cannot work; the message names the flag and both values."""
