"""MIDI files and piano rolls: from events in ticks to notes in time steps, and back."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.music import MAX_STEPS
from fractalgen.music.midi_events import MidiFile, Part, TickGrid, read_file
from fractalgen.music.midi_parser import DRUMS, NEVER
from fractalgen.music.tokens import Meters, Notes, Tempos, merge_notes, seconds_at, whole_bars
from fractalgen.music.voices import merged_voices, voices_of_tracks

# A marker at the last tick carries what notes alone cannot: the width, and which keys sounded from before step 0.
END_MARKER = "FractalGen end of roll"
GRIDS = (4, 8, 12, 16, 24, 32, 48)  # usual time steps a quarter note: 12 for triplets beside sixteenths
Changes: TypeAlias = tuple[tuple[int, int], ...]
_BEAT_JITTER = 0.005  # seconds: beats that even spacing explains this well belong to one tempo


@dataclass(frozen=True)
class BeatMap:
    """Where the beats of a performance are: increasing seconds (b,), and which of them begin a bar (indices)."""

    seconds: npt.NDArray[np.float64]
    downbeats: npt.NDArray[np.int64]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> BeatMap:
        """Read POP909's ``beat_midi.txt``: column 1 the beat in seconds, column 3 is 1 where a bar begins."""
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            table = np.array([line.split() for line in lines if line.strip()], np.float64, ndmin=2)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: unreadable beat map ({' '.join(str(error).split())})") from error
        if table.shape[0] < 2 or table.shape[1] < 3 or not np.isfinite(table).all():
            raise UserError(f"{path}: a beat map needs at least two rows of three numbers, this has {table.shape}")
        if (np.diff(table[:, 0]) <= 0).any():
            raise UserError(f"{path}: the beats are not in increasing order")
        downbeats = np.flatnonzero(table[:, 2] == 1)
        if not len(downbeats):
            raise UserError(f"{path}: no downbeat (no 1 in column 3)")
        return cls(table[:, 0], downbeats)

    def position(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Beat number (fractional) at a time; before the first and after the last beat their spacing continues."""
        known = self.seconds
        position = np.interp(seconds, known, np.arange(len(known)))
        early, late = seconds < known[0], seconds > known[-1]
        position[early] = (seconds[early] - known[0]) / (known[1] - known[0])
        position[late] = len(known) - 1 + (seconds[late] - known[-1]) / (known[-1] - known[-2])
        return position

    def origin(self, beat: float) -> int:
        """The downbeat at or before ``beat``; before the first one, whole bars of the commonest length go backwards."""
        first = int(self.downbeats[0])
        if beat >= first:
            return int(self.downbeats[np.searchsorted(self.downbeats, beat, side="right") - 1])
        return first - self.bar * int(np.ceil((first - beat) / self.bar))

    @property
    def bar(self) -> int:
        """Beats in the commonest bar."""
        lengths = np.diff(self.downbeats)
        return int(np.bincount(lengths).argmax()) if len(lengths) else 4

    def tempos(self, origin: int, steps_per_quarter: int) -> Tempos:
        """Tempo changes (step, beats a minute) counted from beat ``origin``; tiny jitter of the beats is no change.

        A tempo holds as long as one line through its first beat comes close to all others: each beat narrows down how
        steep that line may be.
        """
        changes: list[tuple[int, float]] = []
        seconds = self.seconds.tolist()
        start = 0
        while start < len(seconds) - 1:
            slowest, fastest, period, stop = math.inf, -math.inf, 0.0, start
            for beat in range(start + 1, len(seconds)):
                slope, slack = (seconds[beat] - seconds[start]) / (beat - start), _BEAT_JITTER / (beat - start)
                if not fastest < slope < slowest:
                    break
                slowest, fastest = min(slowest, slope + slack), max(fastest, slope - slack)
                period, stop = slope, beat
            changes.append(((start - origin) * steps_per_quarter if changes else 0, 60.0 / period))
            start = stop
        return tuple(changes)

    def meters(self, origin: int, steps_per_quarter: int) -> Meters:
        """Meter changes (step, beats, 4) counted from beat ``origin``; a beat is taken for a quarter note."""
        bars = np.r_[np.diff(self.downbeats), self.bar]
        starts = self.downbeats - origin
        meters = [(0, self.bar, 4)] if starts[0] > 0 else []
        for start, length in zip(starts.tolist(), bars.tolist(), strict=True):
            if start >= 0 and (not meters or meters[-1][1] != length):
                meters.append((start * steps_per_quarter, length, 4))
        return tuple(meters)


@dataclass(frozen=True)
class MidiEvents:
    """What a MIDI file says, in steps from the beginning of the roll: notes not yet rounded to the grid.

    ``changes``: the tempi as the file has them, (ticks, microseconds a quarter).  ``key``: sharps (flats below 0) and
    whether it is minor, as the first key signature says.  ``pedalled``: how many notes of the roll the pedal lengthens.
    ``remarks``: what is missing or was completed, each in one line.  ``origin``: the beat of the beat map at step 0.
    ``voices``: what the name of each note's track says of it, see :mod:`fractalgen.music.voices`.  ``drums``: how many
    notes of drums are left out.
    """

    onset: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    pitch: npt.NDArray[np.int64]
    velocity: npt.NDArray[np.int64]
    tempos: Tempos
    meters: Meters
    steps_per_quarter: int
    width: int
    held: tuple[int, ...]
    changes: Changes
    ticks_per_quarter: int
    key: tuple[int, bool] | None
    pedalled: int
    remarks: tuple[str, ...]
    origin: int
    voices: npt.NDArray[np.uint8]
    drums: int

    @property
    def grid_distance(self) -> float:
        """Mean distance of the onsets to the nearest step, in steps: 0 is exact, 0.25 is what random times give."""
        return float(np.abs(self.onset - np.round(self.onset)).mean()) if len(self.onset) else 0.0

    def misplaced(self, steps_per_quarter: int | None = None) -> tuple[int, int]:
        """How many notes a grid (default: this one) merges with others, and moves by more than a quarter of a step."""
        onset = self.onset * ((steps_per_quarter or self.steps_per_quarter) / self.steps_per_quarter)
        place = nearest_steps(onset)
        apart = float(1 << 23)  # steps between two pitches: neither they nor fractions of a step are lost by it
        exact, rounded = (len(np.unique(self.pitch * apart + steps)) for steps in (onset, place))
        return max(0, exact - rounded), int((np.abs(onset - place) > 0.25 + 1e-6).sum())

    def fitting_grid(self) -> int | None:
        """The coarsest usual ``steps_per_quarter`` that merges no notes and moves 1 % at most; None if none does."""
        for grid in GRIDS:
            if grid > self.steps_per_quarter:
                merged, moved = self.misplaced(grid)
                if merged == 0 and moved <= len(self.onset) // 100:
                    return grid
        return None

    def voices_of(self, notes: Notes) -> npt.NDArray[np.uint8]:
        """What the names of tracks say of each note of the roll, to which others may have been merged."""
        return merged_voices(notes, self.pitch, nearest_steps(self.onset), self.voices)

    def tempos_before(self, step: int) -> Tempos:
        """The tempi of a piece of which only the part before ``step`` is kept; the last tempo continues."""
        before = [
            change for change in self.changes if change[0] * self.steps_per_quarter < step * self.ticks_per_quarter
        ]
        return _tempos(before, self.ticks_per_quarter, self.steps_per_quarter)


def read_midi(
    path: str | os.PathLike[str],
    steps_per_quarter: int = 4,
    beats: BeatMap | None = None,
    tracks: Collection[Part] | None = None,
    pedal: bool = True,
    within: npt.NDArray[np.bool_] | None = None,
) -> MidiEvents:
    """Read a MIDI file of type 0 or 1 (tracks are merged); drums are left out.

    Without a beat map the file's ticks are musical time and step 0 is tick 0.  With one, notes are placed by their
    time in seconds, and step 0 is the downbeat at or before the first note.  The piece reaches to its last end-of-track
    event, completed to the bar.  With ``tracks`` (see :mod:`fractalgen.music.midi_tracks`) only their notes are read,
    and the roll is still as wide as the whole piece; with ``within``, bool (T,), so are notes of others struck at steps
    outside of it.  With ``pedal`` notes sound on while their channel's sustaining pedal is down.

    Raises:
        UserError: the file is unreadable, without notes, or longer than ``MAX_STEPS``; the message names it.
    """
    path = Path(path)
    file = read_file(path)
    found, _ = file.notes()
    notes = found[found[:, 1] != DRUMS]
    drums = len(found) - len(notes)
    mark = end_mark(file)
    if not len(notes) and mark is None:
        why = f"only drums ({len(found)} notes), which are left out" if len(found) else "no notes"
        raise UserError("; ".join([f"{path}: {why}", *file.faults]))
    stop = _heard(file, notes) if pedal else notes[:, 5]
    ticks = np.r_[notes[:, 4], stop, notes[:, 5], file.end]
    steps, tempos, meters, origin = _placed(file, ticks, len(notes), steps_per_quarter, beats)
    times = steps[:-1].reshape(3, -1)  # onsets, ends, and when keys come up
    width = 0 if mark is None else TickGrid(file.ticks_per_quarter, steps_per_quarter).step(mark[0])
    longest = max(width, times[1].max(initial=0))
    if longest > MAX_STEPS:
        raise UserError(f"{path}: lasts {longest:,.0f} steps, more than the {MAX_STEPS:,} a roll may have")
    if mark is None:
        width = _whole_width(times, steps[-1], meters, steps_per_quarter)
    if tracks is not None:
        mine = np.array([(row[0], row[1]) in tracks for row in notes.tolist()], np.bool_)
        if within is not None:
            mine |= ~within[np.minimum(nearest_steps(times[0]), len(within) - 1)]
        notes, stop, times = notes[mine], stop[mine], times[:, mine]
    track, _, pitch, velocity, _, key_up, _, off = notes.T
    remarks = list(file.faults)
    if never := int((off == NEVER).sum()):
        remarks.append(f"notes that are never ended ({never}) sound until struck again or to the end of their track")
    return MidiEvents(
        onset=times[0],
        end=times[1],
        pitch=pitch,
        velocity=velocity,
        tempos=tempos,
        meters=meters,
        steps_per_quarter=steps_per_quarter,
        width=width,
        held=() if mark is None else tuple(int(key) for key in re.findall(rb"\b\d{1,3}\b", mark[1])),
        changes=file.tempos,
        ticks_per_quarter=file.ticks_per_quarter,
        key=file.key,
        pedalled=_pedalled(pitch, velocity, times) if (stop > key_up).any() else 0,
        remarks=tuple(remarks),
        origin=origin,
        voices=voices_of_tracks(track, file.name),
        drums=drums,
    )


def _heard(file: MidiFile, notes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ticks until which notes (rows of :meth:`.MidiFile.notes`) sound while pedals are down."""
    pedals = file.pedals()
    if not pedals.channels:
        return notes[:, 5]
    return np.fromiter((pedals.heard(row[1], row[5], row[0], row[7]) for row in notes.tolist()), np.int64, len(notes))


def _whole_width(times: npt.NDArray[np.float64], end: float, meters: Meters, steps_per_quarter: int) -> int:
    """Whole bars that hold all notes and, unless it lies absurdly far away, the ``end`` of the last track."""
    width = int(nearest_steps(np.maximum(times[1], times[0] + 1)).max())
    return whole_bars(meters, max(width, int(nearest_steps(end)) if end <= MAX_STEPS else 0), steps_per_quarter)


def _pedalled(pitch: npt.NDArray[np.int64], velocity: npt.NDArray[np.int64], times: npt.NDArray[np.float64]) -> int:
    """How many notes of a roll last longer than their keys; ``times`` (3, n): onsets, ends, and when keys come up."""
    start, end, key_up = nearest_steps(times)
    held, plain = (merge_notes(pitch, start, until, velocity)["duration"] for until in (end, key_up))
    return int((held > plain).sum())


def end_mark(file: MidiFile) -> tuple[int, bytes] | None:
    """Tick and text of the marker that ends a file of :meth:`.PianoRoll.to_midi`; None in other files."""
    marks = [mark for mark in file.meta(0x06) if mark[1].startswith(END_MARKER.encode())]
    return marks[-1] if marks else None


def _placed(
    file: MidiFile, ticks: npt.NDArray[np.int64], notes: int, steps_per_quarter: int, beats: BeatMap | None
) -> tuple[npt.NDArray[np.float64], Tempos, Meters, int]:
    """Where ticks lie in steps, the tempi and meters by step, and the beat of the beat map at step 0.

    The first ``notes`` of the ticks are onsets, of which a beat map has the first one in its first bar.
    """
    quarter = file.ticks_per_quarter
    if beats is None or not notes:
        # of several meters at one step the last one counts
        grid = TickGrid(quarter, steps_per_quarter)
        signs = {grid.step(tick): sign for tick, *sign in file.meters}
        meters: Meters = tuple((step, beat_count, unit) for step, (beat_count, unit) in signs.items())
        return ticks * steps_per_quarter / quarter, _tempos(file.tempos, quarter, steps_per_quarter), meters, 0
    steps = beats.position(_seconds(file.tempos, quarter, ticks)) * steps_per_quarter
    origin = beats.origin(int(nearest_steps(steps[:notes].min())) / steps_per_quarter)
    tempos, meters = beats.tempos(origin, steps_per_quarter), beats.meters(origin, steps_per_quarter)
    return steps - origin * steps_per_quarter, tempos, meters, origin


def _tempos(changes: Iterable[tuple[int, int]], ticks_per_quarter: int, steps_per_quarter: int) -> Tempos:
    """Tempo changes (step, quarters a minute) by which every step begins when it does in the file.

    A step in which the tempo changes takes as long as the file says: its tempo is a mean.
    """
    tempo = 500_000
    begins: dict[int, int] = {}  # microseconds a quarter from this step on
    longer: dict[int, int] = defaultdict(int)  # how much longer this step takes than its beginning says
    for tick, changed in dict(changes).items():
        step, inside = divmod(tick * steps_per_quarter, ticks_per_quarter)
        if inside:
            begins.setdefault(step, tempo)
            longer[step] += (changed - tempo) * (ticks_per_quarter - inside)
            step += 1
        begins[step] = tempo = changed
    return tuple(
        (step, 60e6 / ((2 * (tempo * ticks_per_quarter + longer[step]) + ticks_per_quarter) // (2 * ticks_per_quarter)))
        for step, tempo in begins.items()
    )


def _seconds(changes: Changes, ticks_per_quarter: int, ticks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Seconds at which each tick falls, by the file's own tempi."""
    tempos = {0: 500_000, **dict(changes)}
    return seconds_at(list(tempos), np.array(list(tempos.values())) / (1e6 * ticks_per_quarter), ticks)


def nearest_steps(steps: npt.NDArray[np.float64] | float) -> npt.NDArray[np.int64]:
    """Times in steps, rounded to the grid; halves go up."""
    return np.asarray(np.floor(steps + 0.5), np.int64)
