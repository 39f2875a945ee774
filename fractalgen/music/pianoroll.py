"""The piano roll: a piece on a grid, read from MIDI and written to it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.music.bars import main_meter
from fractalgen.music.midi import END_MARKER, BeatMap, MidiEvents, nearest_steps, read_midi
from fractalgen.music.midi_parser import END_OF_TRACK, Event
from fractalgen.music.midi_writer import meter_event, midi_bytes, note_events, tempo_event, text_event
from fractalgen.music.tokens import (
    DEFAULT_METER,
    DEFAULT_TEMPO,
    HOLD,
    ONSET,
    PITCHES,
    Meters,
    Notes,
    Tempos,
    grid_steps,
    merge_notes,
    midi_velocity,
    notes_from_tokens,
    seconds_at,
    tokens_from_notes,
    velocity_bin,
    without_repeats,
)
from fractalgen.music.voices import RIGHT
from fractalgen.music.voices import hands as hands_of

Markers = Sequence[tuple[int, str]]


def _midi_tempo(tempo: float) -> float:
    """The nearest tempo that MIDI can say: whole microseconds a quarter, three bytes."""
    if not 0 < tempo < float("inf") or not 1 <= round(60e6 / tempo) < 1 << 24:
        raise UserError(f"tempo {tempo}: MIDI allows 3.6 to 60,000,000 quarter notes a minute")
    return 60e6 / round(60e6 / tempo)


@dataclass(frozen=True, eq=False)
class PianoRoll:
    """A piece on a grid of sixteenths (by default).

    Attributes:
        tokens: uint8 (128, T), pitch and time step: 0 is silence, 1 a hold, from 2 on an onset with a velocity bin.
        steps_per_quarter: time steps of a quarter note, from 1 to 480.
        velocity_bins: number of velocity bins, from 1 to 64.
        tempos: changes (step, quarter notes a minute), rounded to the whole microseconds a quarter that MIDI can say.
        time_signatures: changes (step, numerator, denominator).

    Tempos and time signatures are completed at step 0 with the MIDI standard's defaults, 120 and 4/4; entries at or
    past the end are dropped.
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
        meters = {
            max(int(step), 0): (num, den)
            for step, num, den in (DEFAULT_METER, *sorted(self.time_signatures, key=itemgetter(0)))
        }
        for num, den in meters.values():
            if not (1 <= num <= 255 and 1 <= den <= 64 and den & (den - 1) == 0):
                raise UserError(f"time signature {num}/{den}: MIDI allows 1 to 255 over a power of two up to 64")
        bars = [(step, num, den) for step, (num, den) in meters.items() if step == 0 or step < self.width]
        object.__setattr__(self, "tempos", without_repeats(kept))
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
        durations = np.array([60.0 / (tempo * self.steps_per_quarter) for _, tempo in self.tempos])
        return seconds_at([step for step, _ in self.tempos], durations, np.asarray(steps))

    @property
    def steps_per_bar(self) -> int:
        """Steps of a bar, in the meter that lasts longest."""
        beats, unit = main_meter(self.time_signatures, self.width)
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

        Raises:
            UserError: the file cannot be read or holds no notes; the reason is one line.
        """
        events = read_midi(path, steps_per_quarter, beats, pedal=pedal)
        for remark in events.remarks:
            warnings.warn(f"{path}: {remark}", RuntimeWarning, stacklevel=2)
        return cls.from_events(events, velocity_bins)

    @classmethod
    def from_events(cls, events: MidiEvents, velocity_bins: int = 32) -> PianoRoll:
        """The notes of a MIDI file, each on the nearest step of the grid."""
        notes = merge_notes(
            events.pitch,
            nearest_steps(events.onset),
            nearest_steps(events.end),
            velocity_bin(events.velocity, velocity_bins),
        )
        width = max(events.width, int((notes["start"] + notes["duration"]).max()) if len(notes) else 0)
        tokens = tokens_from_notes(notes, 0, width)
        for key in events.held:
            if width and key < len(tokens) and tokens[key, 0]:
                tokens[key, 0] = HOLD
        return cls(tokens, events.steps_per_quarter, velocity_bins, events.tempos, events.meters)

    def to_midi(
        self, path: str | os.PathLike[str], text: str = "", *, markers: Markers = (), hands: bool = False
    ) -> None:
        """Write :meth:`midi_file`; the file appears whole or not at all."""
        content = self.midi_file(text, markers, hands)
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content)

    def end_marker(self) -> bytes:
        """The event at the last tick of a MIDI file that keeps the width, and which keys sounded from before step 0."""
        held = np.flatnonzero(self.tokens[:, :1] == HOLD)
        return text_event(0x06, " ".join([END_MARKER, *map(str, held)]))

    def midi_file(self, text: str = "", markers: Markers = (), hands: bool = False) -> bytes:
        """A type 1 file: tempo, meter, one piano track; orphan holds sound from step 0 at the middle velocity.

        ``text``: a text event at the beginning.  ``markers``: (step, text), such as chords.  ``hands``: two tracks, the
        right and the left hand, by the rule of :func:`fractalgen.music.voices.hands`.

        A marker at the last tick keeps the width, so reading the file gives this very roll again (given the same
        ``steps_per_quarter`` and ``velocity_bins``).
        """
        ticks = max(1, 480 // self.steps_per_quarter)
        conductor = [Event(0, text_event(0x01, text))] if text else []
        conductor += [Event(step * ticks, tempo_event(tempo)) for step, tempo in self.tempos]
        conductor += [Event(step * ticks, meter_event(beats, unit)) for step, beats, unit in self.time_signatures]
        conductor += [Event(step * ticks, text_event(0x06, marker)) for step, marker in markers]
        conductor.sort(key=lambda event: event.tick)
        notes = self.notes()
        parts = {"Piano": np.ones(len(notes), bool)}
        if hands:
            right = hands_of(notes) == RIGHT
            parts = {"Right hand": right, "Left hand": ~right}
        pianos = []
        for name, mine in parts.items():
            part = notes[mine]
            loud = midi_velocity(part["velocity"], self.velocity_bins).tolist()
            rows = [
                (start * ticks, (start + length) * ticks, pitch, velocity)
                for (pitch, start, length, _), velocity in zip(part.tolist(), loud, strict=True)
            ]
            pianos.append([Event(0, text_event(0x03, name)), Event(0, b"\xc0\x00"), *note_events(rows, 0)])
        pianos[-1].append(Event(self.width * ticks, self.end_marker()))
        tracks = [[*events, Event(self.width * ticks, END_OF_TRACK)] for events in (conductor, *pianos)]
        return midi_bytes(tracks, ticks * self.steps_per_quarter)
