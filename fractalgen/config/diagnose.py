"""Settings of ``fractalgen diagnose``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig:
    """``fractalgen diagnose``: what is wrong with a piece or with the way it was composed."""

    files: tuple[str, ...] = field(metadata={"help": ".trace.npz or .mid files"})
