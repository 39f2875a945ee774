"""Settings of ``fractalgen export``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fractalgen.config.fields import setting

SavedPrecision = Literal["32", "bf16", "int8"]
"""The numbers in a file to share."""


@dataclass(frozen=True)
class ExportConfig:
    """``fractalgen export``: a training checkpoint becomes a small file to share."""

    checkpoint: str = setting("", "training checkpoint (.ckpt)")
    out: str = setting("model.safetensors", "file to write")
    precision: SavedPrecision = setting(
        "bf16", "numbers in the file: float32, bfloat16 at half the size, or matrices of bytes at a quarter"
    )
    corpus: str = setting("", "name of the training corpus, stored in the file")
    licence: str = setting("", "licence of that corpus, stored in the file")
