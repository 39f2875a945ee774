"""What is counted in rolls: one definition of each measure, for labels, statistics, health checks and pictures.

A roll is an array of tokens (..., 128, T); measures of one roll (128, T) are single numbers.  *Cell density* is the
share of cells that sound.  The label ``density`` means notes per bar.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.music.tokens import ONSET, SILENCE

Tokens = npt.NDArray[Any]


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def cell_density(tokens: Tokens) -> npt.NDArray[np.float64]:
    """Share of cells that sound, struck or held."""
    return np.asarray(np.mean(tokens != SILENCE, axis=(-2, -1)))


def note_count(tokens: Tokens) -> npt.NDArray[np.int64]:
    """Number of notes struck; holds without an onset are no notes."""
    return np.asarray(np.sum(tokens >= ONSET, axis=(-2, -1)))


def notes_per_bar(tokens: Tokens, steps_per_bar: float, steps: float | None = None) -> npt.NDArray[np.float64]:
    """Notes struck per bar of ``steps_per_bar`` time steps, over ``steps`` of them (default: the width)."""
    return note_count(tokens) / ((tokens.shape[-1] if steps is None else steps) / steps_per_bar)


def polyphony(tokens: Tokens) -> npt.NDArray[np.int64]:
    """Number of cells that sound at each step, (..., T)."""
    return np.asarray(np.sum(tokens != SILENCE, axis=-2))


def mean_polyphony(tokens: Tokens) -> npt.NDArray[np.float64]:
    """Mean polyphony over the steps in which anything sounds; NaN in silence."""
    voices = polyphony(tokens)
    return ratio(voices.sum(-1), (voices > 0).sum(-1))


def sounding_pitches(tokens: Tokens) -> npt.NDArray[np.int64]:
    """Pitches of one roll (128, T) at which anything sounds, in ascending order."""
    return np.flatnonzero((tokens != SILENCE).any(axis=-1))


def end_of_music(tokens: Tokens) -> int:
    """Step at which the last note of one roll (128, T) ends; 0 in silence."""
    steps = np.flatnonzero((tokens != SILENCE).any(axis=-2))
    return int(steps[-1]) + 1 if len(steps) else 0


def by_pitch_class(cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums (n, 12, ...) of (n, pitches, ...) over the octaves; pitch 0 is a C."""
    count, pitches, *rest = cells.shape
    octaves = -(-pitches // 12)
    padded = np.pad(cells, ((0, 0), (0, 12 * octaves - pitches), *((0, 0),) * len(rest)))
    return padded.reshape(count, octaves, 12, *rest).sum(axis=1)
