"""Tokens, notes and musical time: what a piano roll is made of.

A roll is a uint8 array (128 pitches, T steps); the row index is the MIDI pitch.  Each cell holds one token:
0 silence, 1 hold (the note struck earlier continues), 2 + v an onset with velocity bin v.  A hold whose left neighbour
is silence is an *orphan*, allowed only in column 0: a note that began before the excerpt.

A roll is one piano part: all tracks but drums are merged; of notes struck together on one key the loudest velocity and
the longest duration stay; a key struck again while it sounds is cut and restarted; every note lasts at least one step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from fractalgen.music import MAX_STEPS

PITCHES = 128
SILENCE = 0
HOLD = 1
ONSET = 2
UNKNOWN, NO_HOLD = -1, -2  # cells to be composed: as the model likes, or so that the given note before stays as it is
ABSENT = -3  # no cell at all: behind the end of a bar that is shorter than its column
NOTE = np.dtype([("pitch", "u1"), ("start", "i4"), ("duration", "i4"), ("velocity", "u1")])
TEMPO = 120.0  # quarter notes a minute: what the MIDI standard assumes where nobody names a tempo
DEFAULT_TEMPO = (0, TEMPO)
DEFAULT_METER = (0, 4, 4)

Notes = np.ndarray[Any, np.dtype[np.void]]
Tempos = tuple[tuple[int, float], ...]
Meters = tuple[tuple[int, int, int], ...]
Value = TypeVar("Value")


def tokens_from_notes(notes: Notes, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Tokens (128, stop - start) of the steps ``start`` to ``stop``; a note sounding across ``start`` leaves holds.

    ``notes`` must not overlap on one pitch, as :func:`merge_notes` sees to.
    """
    tokens = np.zeros((PITCHES, stop - start), np.uint8)
    begin = notes["start"].astype(np.int64)
    inside = (begin < stop) & (begin + notes["duration"] > start)
    notes, begin = notes[inside], begin[inside]
    first = np.maximum(begin, start) - start
    length = np.minimum(begin + notes["duration"], stop) - start - first
    rows = np.repeat(notes["pitch"].astype(np.int64), length)
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    tokens[rows, np.repeat(first, length) + within] = HOLD
    struck = begin >= start
    tokens[notes["pitch"][struck], first[struck]] = ONSET + notes["velocity"][struck]
    return tokens


def merge_notes(pitch: npt.ArrayLike, start: npt.ArrayLike, stop: npt.ArrayLike, velocity: npt.ArrayLike) -> Notes:
    """Notes (sorted by start, then pitch) that fit one keyboard, from columns in steps and velocity bins.

    Of notes with the same pitch and start the loudest velocity and the latest end stay; a note is cut where its pitch
    is struck again; nothing is shorter than one step.
    """
    columns = [np.asarray(column, np.int64) for column in (pitch, start, stop, velocity)]
    order = np.lexsort((columns[1], columns[0]))
    keys, starts, stops, loud = (column[order] for column in columns)
    if not len(keys):
        return np.zeros(0, NOTE)
    first = np.flatnonzero(np.r_[True, (np.diff(keys) != 0) | (np.diff(starts) != 0)])
    keys, starts = keys[first], starts[first]
    stops = np.maximum(np.maximum.reduceat(stops, first), starts + 1)
    loud = np.maximum.reduceat(loud, first)
    again = np.flatnonzero(np.diff(keys) == 0)
    stops[again] = np.minimum(stops[again], starts[again + 1])
    notes = np.zeros(len(keys), NOTE)
    notes["pitch"], notes["start"], notes["duration"], notes["velocity"] = keys, starts, stops - starts, loud
    return notes[np.lexsort((keys, starts))]


def notes_from_tokens(tokens: npt.NDArray[np.uint8], velocity_bins: int = 32) -> Notes:
    """Notes of a roll, sorted by start, then pitch.

    An orphan hold becomes a note that starts where the hold starts, in the middle velocity bin.
    """
    width = tokens.shape[1]
    flat = np.pad(tokens, ((0, 0), (0, 1))).ravel()  # a silent column keeps the rows apart
    orphan = (flat == HOLD) & (np.r_[SILENCE, flat[:-1]] == SILENCE)
    starts = np.flatnonzero((flat >= ONSET) | orphan)
    breaks = np.flatnonzero(flat != HOLD)
    stops = breaks[np.searchsorted(breaks, starts, side="right")] if len(starts) else starts
    notes = np.zeros(len(starts), NOTE)
    notes["pitch"], notes["start"] = np.divmod(starts, width + 1)
    notes["duration"] = stops - starts
    notes["velocity"] = np.where(orphan[starts], velocity_bins // 2, flat[starts] - ONSET)
    return notes[np.lexsort((notes["pitch"], notes["start"]))]


def orphan_holds(tokens: npt.NDArray[Any]) -> int:
    """Number of holds with silence to their left, column 0 excluded; ``tokens`` is (..., 128, T)."""
    return int(((tokens[..., 1:] == HOLD) & (tokens[..., :-1] == SILENCE)).sum())


def velocities(tokens: npt.NDArray[Any], velocity_bins: int = 32) -> npt.NDArray[np.float32]:
    """Loudness (..., 128, T) in 0 to 1: silence 0, a struck or held cell the velocity of its note (orphans 0.5)."""
    bins = np.clip(np.asarray(tokens, np.int64) - ONSET, 0, None)
    struck = midi_velocity(bins, velocity_bins) / 127.0
    steps = np.arange(tokens.shape[-1])
    latest = np.maximum.accumulate(np.where(tokens != HOLD, steps, -1), axis=-1)  # the cell each hold continues
    level = np.where(tokens >= ONSET, struck, 0.0)
    carried = np.take_along_axis(level, np.maximum(latest, 0), axis=-1)
    carried = np.where((latest < 0) | (carried == 0.0), 0.5, carried)
    return np.where(tokens == HOLD, carried, level).astype(np.float32)


def velocity_bin(velocity: npt.ArrayLike, velocity_bins: int = 32) -> npt.NDArray[np.int64]:
    """Bin of a MIDI velocity (0 to 127)."""
    return np.asarray(velocity, np.int64) * velocity_bins // 128


def midi_velocity(bins: npt.ArrayLike, velocity_bins: int = 32) -> npt.NDArray[np.int64]:
    """MIDI velocity at the centre of a bin."""
    return (2 * np.asarray(bins, np.int64) + 1) * 64 // velocity_bins


def grid_steps(
    meters: Meters, num_steps: int, steps_per_quarter: int = 4, unit: Literal["bar", "beat"] = "bar"
) -> npt.NDArray[np.int32]:
    """Steps below ``num_steps`` at which a bar (or a beat: dotted in 6/8, 9/8, 12/8) begins."""
    grid = [np.zeros(0)]
    for (start, numerator, denominator), end in zip(meters, ends_of(meters, num_steps), strict=False):
        stop = min(end, num_steps)
        unit_steps = 4 * steps_per_quarter / denominator
        steps = np.arange(start, stop, numerator * unit_steps)
        if unit == "beat":
            dotted = denominator >= 8 and numerator % 3 == 0
            beats = np.arange(0, numerator, 3 if dotted else 1) * unit_steps
            steps = (steps[:, None] + beats).ravel()
        grid.append(steps[steps < stop])
    return np.unique(np.floor(np.concatenate(grid) + 0.5).astype(np.int32))


def ends_of(changes: Sequence[tuple[Any, ...]], end: int) -> list[int]:
    """Up to where each of the changes (step, ...) holds: the step of the next one, and the ``end`` for the last."""
    return [*(change[0] for change in changes[1:]), end]


def without_repeats(values: Iterable[tuple[int, Value]]) -> tuple[tuple[int, Value], ...]:
    """Those of (step, value) in order of time whose value is not that of the one before."""
    rows = list(values)
    return tuple(row for index, row in enumerate(rows) if index == 0 or row[1] != rows[index - 1][1])


def seconds_at(
    starts: Sequence[int], durations: npt.NDArray[np.float64], places: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """The time at each place, where from each of the ``starts`` on a unit has one of the ``durations`` in seconds."""
    first = np.array(starts)
    elapsed = np.r_[0.0, np.cumsum(np.diff(first) * durations[:-1])]
    segment = np.searchsorted(first, places, side="right") - 1
    return np.asarray(elapsed[segment] + (places - first[segment]) * durations[segment])


def steps_of_bars(bars: float, steps_per_quarter: int, beats: int = 4, unit: int = 4) -> int:
    """The time steps that are nearest to so many bars of a meter of ``beats`` over ``unit``."""
    return round(bars * 4 * steps_per_quarter * beats / unit)


def whole_bars(meters: Meters, num_steps: int, steps_per_quarter: int = 4) -> int:
    """``num_steps``, completed to the next bar line, but to no more than a roll may have."""
    meters = (DEFAULT_METER, *sorted(meters, key=itemgetter(0)))
    start, numerator, denominator = next(meter for meter in reversed(meters) if meter[0] < max(num_steps, 1))
    bar = 4 * steps_per_quarter * numerator / denominator
    bars = max(0, math.ceil((num_steps - 0.5 - start) / bar))
    lines = [math.floor(start + bars * bar + 0.5), *(meter[0] for meter in meters if meter[0] >= num_steps > 0)]
    return min(*lines, MAX_STEPS)
