"""The piano roll: tokens, notes and musical time (reading and writing MIDI is in ``midi.py``).

A roll is a uint8 array (128 pitches, T steps); the row index is the MIDI pitch.  Each cell holds one token:
0 silence, 1 hold (the note struck earlier goes on), 2 + v an onset with velocity bin v.  A hold whose left neighbour
is silence is an *orphan*, allowed only in column 0: a note that began before the excerpt.

A roll is one piano part: all tracks but drums are merged; of notes struck together on one key the loudest velocity and
the longest duration stay; a key struck again while it sounds is cut and restarted; every note lasts at least one step.
"""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fractalgen.config import MAX_STEPS
from fractalgen.errors import UserError

if TYPE_CHECKING:
    from fractalgen.midi import BeatMap

PITCHES = 128
SILENCE = 0
HOLD = 1
ONSET = 2
UNKNOWN, NO_HOLD = -1, -2  # cells to be composed: as the model likes, or so that the given note before stays as it is
NOTE = np.dtype([("pitch", "u1"), ("start", "i4"), ("duration", "i4"), ("velocity", "u1")])
DEFAULT_TEMPO = (0, 120.0)  # what the MIDI standard assumes when a file is silent about it
DEFAULT_METER = (0, 4, 4)

Notes = np.ndarray[Any, np.dtype[np.void]]
Tempos = tuple[tuple[int, float], ...]
Meters = tuple[tuple[int, int, int], ...]


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


def _midi_tempo(tempo: float) -> float:
    """The nearest tempo that MIDI can say: whole microseconds a quarter, three bytes."""
    if not 0 < tempo < float("inf") or not 1 <= round(60e6 / tempo) < 1 << 24:
        raise UserError(f"tempo {tempo}: MIDI knows 3.6 to 60,000,000 quarter notes a minute")
    return 60e6 / round(60e6 / tempo)


def grid_steps(
    meters: Meters, num_steps: int, steps_per_quarter: int = 4, unit: Literal["bar", "beat"] = "bar"
) -> npt.NDArray[np.int32]:
    """Steps below ``num_steps`` at which a bar (or a beat: dotted in 6/8, 9/8, 12/8) begins."""
    grid = [np.zeros(0)]
    for index, (start, numerator, denominator) in enumerate(meters):
        stop = min(meters[index + 1][0] if index + 1 < len(meters) else num_steps, num_steps)
        unit_steps = 4 * steps_per_quarter / denominator
        steps = np.arange(start, stop, numerator * unit_steps)
        if unit == "beat":
            dotted = denominator >= 8 and numerator % 3 == 0
            beats = np.arange(0, numerator, 3 if dotted else 1) * unit_steps
            steps = (steps[:, None] + beats).ravel()
        grid.append(steps[steps < stop])
    return np.unique(np.floor(np.concatenate(grid) + 0.5).astype(np.int32))


def whole_bars(meters: Meters, num_steps: int, steps_per_quarter: int = 4) -> int:
    """``num_steps``, completed to the next bar line, but to no more than a roll may have."""
    meters = (DEFAULT_METER, *sorted(meters, key=itemgetter(0)))
    start, numerator, denominator = next(meter for meter in reversed(meters) if meter[0] < max(num_steps, 1))
    bar = 4 * steps_per_quarter * numerator / denominator
    bars = max(0, math.ceil((num_steps - 0.5 - start) / bar))
    lines = [math.floor(start + bars * bar + 0.5), *(meter[0] for meter in meters if meter[0] >= num_steps > 0)]
    return min(*lines, MAX_STEPS)


@dataclass(frozen=True, eq=False)
class PianoRoll:
    """A piece on a grid of sixteenths (by default).

    ``tokens``: uint8 (128, T).  ``tempos``: (step, quarter notes a minute), rounded to the whole microseconds a
    quarter that MIDI can say.  ``time_signatures``: (step, numerator, denominator).  Both are completed at step 0
    with the MIDI standard's defaults, 120 and 4/4; entries at or past the end are dropped.
    """

    tokens: npt.NDArray[np.uint8]
    steps_per_quarter: int = 4
    velocity_bins: int = 32
    tempos: Tempos = (DEFAULT_TEMPO,)
    time_signatures: Meters = (DEFAULT_METER,)

    def __post_init__(self) -> None:
        tokens = np.asarray(self.tokens)
        if tokens.ndim != 2 or tokens.shape[0] != PITCHES:
            raise ValueError(f"a roll has shape ({PITCHES}, steps), not {tokens.shape}")
        if not 1 <= self.velocity_bins <= 64:
            raise UserError(f"velocity_bins: 1 to 64, not {self.velocity_bins}")
        if not 1 <= self.steps_per_quarter <= 480:
            raise UserError(f"steps_per_quarter: 1 to 480, not {self.steps_per_quarter}")
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < ONSET + self.velocity_bins:
            raise ValueError(f"tokens must lie in 0 to {ONSET + self.velocity_bins - 1}, found {tokens.max()}")
        object.__setattr__(self, "tokens", np.ascontiguousarray(tokens, np.uint8))
        tempos = {
            max(int(step), 0): _midi_tempo(tempo)
            for step, tempo in (DEFAULT_TEMPO, *sorted(self.tempos, key=itemgetter(0)))
        }
        kept = [(step, tempo) for step, tempo in tempos.items() if step == 0 or step < self.width]
        changed = [event for i, event in enumerate(kept) if i == 0 or event[1] != kept[i - 1][1]]
        meters = {
            max(int(step), 0): (num, den)
            for step, num, den in (DEFAULT_METER, *sorted(self.time_signatures, key=itemgetter(0)))
        }
        for num, den in meters.values():
            if not (1 <= num <= 255 and 1 <= den <= 64 and den & (den - 1) == 0):
                raise UserError(f"time signature {num}/{den}: MIDI knows 1 to 255 over a power of two up to 64")
        bars = [(step, num, den) for step, (num, den) in meters.items() if step == 0 or step < self.width]
        object.__setattr__(self, "tempos", tuple(changed))
        object.__setattr__(self, "time_signatures", tuple(bars))

    @property
    def width(self) -> int:
        """Number of time steps."""
        return int(self.tokens.shape[1])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PianoRoll):
            return NotImplemented
        return np.array_equal(self.tokens, other.tokens) and self._settings() == other._settings()

    __hash__ = None  # type: ignore[assignment]  # holds an array

    def _settings(self) -> tuple[object, ...]:
        return self.steps_per_quarter, self.velocity_bins, self.tempos, self.time_signatures

    def __repr__(self) -> str:
        return f"PianoRoll({self.width} steps, {len(self.notes())} notes, {self.seconds:.1f} s)"

    @cached_property
    def seconds(self) -> float:
        """Duration in seconds."""
        return float(self.time_of(self.width))

    def time_of(self, steps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Seconds from the beginning at which each step begins."""
        starts = np.array([step for step, _ in self.tempos])
        per_step = np.array([60.0 / (tempo * self.steps_per_quarter) for _, tempo in self.tempos])
        elapsed = np.r_[0.0, np.cumsum(np.diff(starts) * per_step[:-1])]
        wanted = np.asarray(steps)
        segment = np.searchsorted(starts, wanted, side="right") - 1
        return np.asarray(elapsed[segment] + (wanted - starts[segment]) * per_step[segment])

    @property
    def steps_per_bar(self) -> int:
        """Steps of a bar, in the meter that lasts longest."""
        ends = [*(step for step, _, _ in self.time_signatures[1:]), self.width]
        lasting = [
            (end - start, -start, beats, unit)
            for (start, beats, unit), end in zip(self.time_signatures, ends, strict=True)
        ]
        _, _, beats, unit = max(lasting)
        return max(1, 4 * self.steps_per_quarter * beats // unit)

    def downbeats(self) -> npt.NDArray[np.int32]:
        """Steps at which a bar begins."""
        return grid_steps(self.time_signatures, self.width, self.steps_per_quarter, "bar")

    def notes(self) -> Notes:
        """Notes as a structured array (pitch, start, duration, velocity bin); an orphan hold gets the middle bin."""
        return notes_from_tokens(self.tokens, self.velocity_bins)

    @classmethod
    def from_notes(cls, notes: Notes, width: int | None = None, **settings: Any) -> PianoRoll:
        """A roll of non-overlapping ``notes``, by default just wide enough; ``settings`` are the other fields."""
        needed = int((notes["start"] + notes["duration"]).max()) if len(notes) else 0
        return cls(tokens_from_notes(notes, 0, needed if width is None else width), **settings)

    @classmethod
    def from_midi(
        cls,
        path: str | os.PathLike[str],
        steps_per_quarter: int = 4,
        velocity_bins: int = 32,
        beats: BeatMap | None = None,
        pedal: bool = True,
    ) -> PianoRoll:
        """Read a MIDI file; with a beat map, notes are placed by their time in seconds.

        With ``pedal`` notes sound on while the sustaining pedal is down.  What a damaged file lacks is warned of.

        Raises ``UserError`` with the reason in one line when the file cannot be read or holds no notes.
        """
        from fractalgen.midi import read_midi

        events = read_midi(path, steps_per_quarter, beats, pedal=pedal)
        for remark in events.remarks:
            warnings.warn(f"{path}: {remark}", RuntimeWarning, stacklevel=2)
        return events.roll(velocity_bins)

    def to_midi(self, path: str | os.PathLike[str]) -> None:
        """Write a type 1 file: tempo, meter, one piano track; orphan holds sound from step 0 at the middle velocity.

        A marker at the last tick keeps the width, so reading the file gives this very roll again (given the same
        ``steps_per_quarter`` and ``velocity_bins``).
        """
        from fractalgen.midi import write_midi

        write_midi(self, Path(path))
