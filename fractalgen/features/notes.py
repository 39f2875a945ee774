"""Note statistics of rolls, and the table that compares them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fractalgen.music.measures import cell_density, note_count, notes_per_bar, polyphony
from fractalgen.music.tokens import HOLD, ONSET, PITCHES, SILENCE, orphan_holds

COLUMNS = {
    "density": "cells sounding %",
    "silence": "silent steps %",
    "notes": "notes",
    "notes_per_bar": "notes/bar",
    "polyphony": "polyphony",
    "hold_share": "holds %",
    "pitch_min": "lowest",
    "pitch_mean": "mean pitch",
    "pitch_max": "highest",
    "orphan_holds": "orphans",
}
PERCENT = {"density", "silence", "hold_share"}
Ints = npt.NDArray[np.int64]


def as_rolls(tokens: Any) -> npt.NDArray[np.uint8]:
    """Token rolls (n, 128, T) from one roll (128, T) or a batch, array or tensor; other shapes are a ValueError."""
    rolls = np.asarray(tokens)
    rolls = rolls[None] if rolls.ndim == 2 else rolls
    if rolls.ndim != 3 or rolls.shape[1] != PITCHES or not rolls.size:
        raise ValueError(f"rolls have shape (n, {PITCHES}, steps), none of them 0, not {np.shape(tokens)}")
    return rolls.astype(np.uint8, copy=False)


class Crops(Protocol):
    """A data set of crops, such as :class:`fractalgen.data.crops.ValidCrops`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def crop_tokens(crops: Crops) -> npt.NDArray[np.uint8]:
    """The token rolls (n, 128, T) of a data set."""
    return np.stack([np.asarray(crops[index]["tokens"], np.uint8) for index in range(len(crops))])


class StruckNotes(NamedTuple):
    """Columns of the notes that are struck in rolls, sorted by roll, step, pitch; durations in steps."""

    roll: Ints
    step: Ints
    pitch: Ints
    velocity: Ints
    duration: Ints


def struck_notes(tokens: Any) -> StruckNotes:
    """The notes of rolls (n, 128, T): every onset with the holds that follow it.

    Holds without an onset (a note from before the excerpt, an orphan) are no note; a note that continues beyond the
    right edge ends there.
    """
    rolls = as_rolls(tokens)
    width = rolls.shape[2] + 1
    flat = np.pad(rolls, ((0, 0), (0, 0), (0, 1))).ravel()  # a silent column keeps the rows apart
    starts = np.flatnonzero(flat >= ONSET)
    ends = np.flatnonzero((flat[1:] != HOLD) & (flat[:-1] != SILENCE)) + 1
    durations = ends[np.searchsorted(ends, starts, side="right")] - starts if len(starts) else starts
    roll, rest = np.divmod(starts, PITCHES * width)
    pitch, step = np.divmod(rest, width)
    order = np.lexsort((pitch, step, roll))
    columns = (roll, step, pitch, flat[starts].astype(np.int64) - ONSET, durations)
    return StruckNotes(*(column[order] for column in columns))


def note_statistics(tokens: Any, steps_per_bar: int = 16) -> dict[str, float]:
    """Statistics of token rolls, (128, T) or (n, 128, T), arrays or tensors.

    - ``density``: cell density, the share of cells that sound, ``silence``: share of time steps in which nothing sounds
    - ``notes``: onsets per roll, ``notes_per_bar``: onsets in ``steps_per_bar`` time steps
    - ``polyphony``: sounding cells per time step in which anything sounds
    - ``hold_share``: holds among the sounding cells
    - ``pitch_min``, ``pitch_mean``, ``pitch_max``: MIDI pitch of the sounding cells
    - ``orphan_holds``: holds per roll with silence to their left, column 0 excepted

    What does not exist in silence (pitches, polyphony, share of holds) is NaN there.
    """
    rolls = as_rolls(tokens)
    count = len(rolls)
    sounding, holds = rolls != SILENCE, rolls == HOLD
    voices = polyphony(rolls)
    cells = int(voices.sum())
    per_pitch = sounding.sum(axis=(0, 2))
    pitches = np.flatnonzero(per_pitch)
    return {
        "density": float(cell_density(rolls).mean()),
        "silence": float((voices == 0).mean()),
        "notes": float(note_count(rolls).mean()),
        "notes_per_bar": float(notes_per_bar(rolls, steps_per_bar).mean()),
        "polyphony": cells / int((voices > 0).sum()) if cells else math.nan,
        "hold_share": int(holds.sum()) / cells if cells else math.nan,
        "pitch_min": float(pitches[0]) if cells else math.nan,
        "pitch_mean": float((per_pitch * np.arange(per_pitch.size)).sum() / cells) if cells else math.nan,
        "pitch_max": float(pitches[-1]) if cells else math.nan,
        "orphan_holds": orphan_holds(rolls) / count,
    }


def faults(tokens: Any, real: Any) -> dict[str, float]:
    """Counts of faulty samples: ``silent``, ``saturated`` (denser than any ``real`` roll), with ``orphan_holds``.

    The first two count rolls (of ``tokens``, (n, 128, T), as wide as the real ones), the last is a mean per roll.
    """
    rolls = as_rolls(tokens)
    cells = (rolls != SILENCE).sum((1, 2))
    return {
        "silent": int((cells == 0).sum()),
        "saturated": int((cells > (as_rolls(real) != SILENCE).sum((1, 2)).max()).sum()),
        "orphan_holds": orphan_holds(rolls) / len(rolls),
    }


def statistics_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """A text table with a line for each named :func:`note_statistics`, to be printed side by side."""
    lines = [["", *COLUMNS.values()]]
    for name, values in rows.items():
        cells = [values[key] * (100 if key in PERCENT else 1) for key in COLUMNS]
        lines.append([name, *("-" if math.isnan(value) else f"{value:.4g}" for value in cells)])
    first, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join([name.ljust(first), *(text.rjust(width) for text, width in zip(cells, widths, strict=True))])
        for name, *cells in lines
    )
