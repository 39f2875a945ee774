"""Fields of settings: default, help text and bounds, and choices that several commands share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, Literal

from fractalgen.errors import UserError, shown

Generator = Literal["ar", "mar"]
ScanOrder = Literal["column_major", "row_major"]
CfgSchedule = Literal["constant", "linear"]
MarOrder = Literal["random", "scan"]
Pedal = Literal["follow", "ignore"]
Precision = Literal["auto", "32", "bf16"]
View = Literal["process", "hierarchical", "levels", "density"]

Groups = Mapping[str, tuple[str, ...]]
"""Titles of ``--help`` and the fields under each; the class attribute ``groups`` of a command's settings."""

MOST_LEVELS, MOST_BLOCKS, WIDEST, FARTHEST = 8, 256, 16_384, 4_096
"""Bounds of a model: what lies beyond them is a mistake, or a damaged checkpoint."""

DEFAULT_MODEL = "pop909-ar"
"""Name of the shipped model (fractalgen/assets/models/NAME.safetensors) that is used when none is named."""


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    repeat: bool = False,
    instead_of: str = "",
) -> Any:
    """A dataclass field with its ``--help`` and its bounds, both included; see :func:`check_bounds`.

    Its flag may ``repeat``, or stand ``instead_of`` that of another field.
    """
    metadata = {"help": help, "low": low, "high": high, "repeat": repeat, "instead_of": instead_of}
    return field(default=default, metadata=metadata)


class ConfigError(UserError):
    """A setting that cannot work; the message names the flag and both values."""


def bounds(metadata: Mapping[str, Any]) -> str:
    """The bounds of a field in words; empty where it has none."""
    low, high = metadata.get("low"), metadata.get("high")
    if high is None:
        return "" if low is None else f"at least {low}"
    return f"from {low} to {'2**63 - 1' if high == 2**63 - 1 else high}"


def check_bounds(settings: Any) -> None:
    """Refuse numbers beyond the bounds of their fields.

    Raises:
        ConfigError: names the flag, its value and the bounds.
    """
    for item in fields(settings):
        low, high = (item.metadata.get(name) for name in ("low", "high"))
        value = getattr(settings, item.name)
        numbers = value if isinstance(value, tuple) else (value,)
        if value is None or low is None:
            continue
        if not numbers or not all(low <= number <= (math.inf if high is None else high) for number in numbers):
            raise ConfigError(f"--{item.name} {shown(' '.join(map(str, numbers)))}: must be {bounds(item.metadata)}")
