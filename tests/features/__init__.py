from __future__ import annotations

import numpy as np

from fractalgen.music.tokens import NOTE, tokens_from_notes


def roll(*notes: tuple[int, ...], width: int = 64, velocity: int = 10) -> np.ndarray:
    """A roll of notes (pitch, start, duration) or (pitch, start, duration, velocity bin)."""
    return tokens_from_notes(np.array([(*note, velocity)[:4] for note in notes], NOTE), 0, width)
