"""MIDI files and piano rolls: one reader, one writer, on symusic."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.pianoroll import (
    HOLD,
    MAX_STEPS,
    Meters,
    PianoRoll,
    Tempos,
    merge_notes,
    midi_velocity,
    tokens_from_notes,
    velocity_bin,
)

# A marker at the last tick carries what notes alone cannot: the width, and which keys sounded from before step 0.
END_MARKER = "FractalGen end of roll"
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
        """Beat number (fractional) at a time; before the first and after the last beat their spacing goes on."""
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
    """What a MIDI file says, in steps from the beginning of the roll: notes not yet rounded to the grid."""

    onset: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    pitch: npt.NDArray[np.int64]
    velocity: npt.NDArray[np.int64]
    tempos: Tempos
    meters: Meters
    steps_per_quarter: int
    width: int = 0
    held: tuple[int, ...] = ()

    @property
    def grid_distance(self) -> float:
        """Mean distance of the onsets to the nearest step, in steps: 0 is exact, 0.25 is what random times give."""
        return float(np.abs(self.onset - np.round(self.onset)).mean()) if len(self.onset) else 0.0

    def roll(self, velocity_bins: int = 32) -> PianoRoll:
        """Round to the grid."""
        notes = merge_notes(
            self.pitch, _nearest(self.onset), _nearest(self.end), velocity_bin(self.velocity, velocity_bins)
        )
        width = max(self.width, int((notes["start"] + notes["duration"]).max()) if len(notes) else 0)
        tokens = tokens_from_notes(notes, 0, width)
        for key in self.held:
            if width and key < len(tokens) and tokens[key, 0]:
                tokens[key, 0] = HOLD
        return PianoRoll(tokens, self.steps_per_quarter, velocity_bins, self.tempos, self.meters)


def read_midi(
    path: str | os.PathLike[str],
    steps_per_quarter: int = 4,
    beats: BeatMap | None = None,
    tracks: Collection[int] | None = None,
) -> MidiEvents:
    """Read a MIDI file of type 0, 1 or 2 (tracks are merged); drums are left out.

    Without a beat map the file's ticks are musical time and step 0 is tick 0.  With one, notes are placed by their
    time in seconds, and step 0 is the downbeat at or before the first note.  With ``tracks`` (numbers that
    :func:`find_tracks` gave) only their notes are read, and the roll is still as wide as the whole piece.  Raises
    ``UserError`` naming the file and the reason when it is unreadable, without notes, or longer than ``MAX_STEPS``.
    """
    score = parse_midi(Path(path))
    parts = [(number, track.notes.numpy()) for number, track in enumerate(score.tracks) if not track.is_drum]
    start, length, pitch, velocity = (
        np.concatenate([np.zeros(0, np.int64), *(notes[name] for _, notes in parts)]).astype(np.int64)
        for name in ("time", "duration", "pitch", "velocity")
    )
    ends = [marker for marker in score.markers if marker.text.startswith(END_MARKER)]
    if not len(start) and not ends:
        drums = sum(len(part.notes) for part in score.tracks)
        raise UserError(f"{path}: " + (f"only drums ({drums} notes), which are left out" if drums else "no notes"))
    if len(start) and (start.min() < 0 or length.min() < 0):
        raise UserError(f"{path}: damaged or absurdly long (the tick counter overflows)")
    quarter = score.ticks_per_quarter  # ticks * steps / quarter: halves are exact, whatever the two numbers are
    if beats is None or not len(start):
        onset, end = start * steps_per_quarter / quarter, (start + length) * steps_per_quarter / quarter
        tempos = tuple(
            (_step(t.time * steps_per_quarter / quarter), 60e6 / t.mspq) for t in score.tempos if 0 < t.mspq < 1 << 24
        )
        meters = tuple(
            (_step(m.time * steps_per_quarter / quarter), m.numerator, m.denominator)
            for m in score.time_signatures
            if 1 <= m.numerator <= 255 and m.denominator in (1, 2, 4, 8, 16, 32, 64)
        )
    else:
        onset, end = (beats.position(_seconds(score, ticks)) * steps_per_quarter for ticks in (start, start + length))
        origin = beats.origin(_step(onset.min()) / steps_per_quarter)
        onset, end = onset - origin * steps_per_quarter, end - origin * steps_per_quarter
        tempos, meters = beats.tempos(origin, steps_per_quarter), beats.meters(origin, steps_per_quarter)
    width = _step(ends[-1].time * steps_per_quarter / quarter) if ends else 0
    longest = max(width, end.max() if len(end) else 0)
    if longest > MAX_STEPS:
        raise UserError(f"{path}: lasts {longest:,.0f} steps, more than the {MAX_STEPS:,} a roll may have")
    held = re.findall(r"\d+", ends[-1].text) if ends else []
    if tracks is not None:
        width = max(width, int(_nearest(end).max()) if len(end) else 0)
        mine = np.repeat([number in tracks for number, _ in parts], [len(notes["time"]) for _, notes in parts])
        onset, end, pitch, velocity = onset[mine], end[mine], pitch[mine], velocity[mine]
    return MidiEvents(
        onset,
        end,
        pitch,
        velocity,
        tempos,
        meters,
        steps_per_quarter,
        width,
        tuple(map(int, held)),
    )


def find_tracks(path: str | os.PathLike[str], wanted: str, flag: str = "--voice") -> tuple[int, ...]:
    """Numbers of the tracks that ``wanted`` means: a number from 0, or a name (capitals do not matter).

    Tracks are counted as symusic splits them: one for each MIDI track, channel and program.  So a name may mean
    several.  Raises ``UserError`` with the list of the tracks that can be chosen: those with notes, but no drums.
    """
    score = parse_midi(Path(path))
    names = {
        number: track.name.strip()
        for number, track in enumerate(score.tracks)
        if len(track.notes) and not track.is_drum
    }
    wanted = wanted.strip()
    if wanted.isdecimal() and int(wanted) in names:
        return (int(wanted),)
    found = tuple(number for number, name in names.items() if name.casefold() == wanted.casefold())
    if not found or not wanted:
        exist = ", ".join(
            " ".join(f"{number} {name!r} ({len(score.tracks[number].notes)} notes)".split())
            for number, name in names.items()
        )
        raise UserError(f"{flag} track:{wanted}: {path} has the tracks {exist or '(none with notes)'}")
    return found


def write_midi(roll: PianoRoll, path: Path) -> None:
    """Write a roll as a type 1 file with one piano track; the file appears whole or not at all."""
    import symusic

    ticks = max(1, 480 // roll.steps_per_quarter)
    score: Any = symusic.Score(ticks * roll.steps_per_quarter)
    for step, tempo in roll.tempos:
        score.tempos.append(symusic.Tempo(step * ticks, mspq=round(60e6 / tempo)))
    for step, numerator, denominator in roll.time_signatures:
        score.time_signatures.append(symusic.TimeSignature(step * ticks, numerator, denominator))
    notes = roll.notes()
    track: Any = symusic.Track("Piano", 0, False)
    track.notes = symusic.Note.from_numpy(
        (notes["start"] * ticks).astype(np.int32),
        (notes["duration"] * ticks).astype(np.int32),
        notes["pitch"].astype(np.int8),
        midi_velocity(notes["velocity"], roll.velocity_bins).astype(np.int8),
    )
    score.tracks.append(track)
    held = np.flatnonzero(roll.tokens[:, :1] == HOLD)
    text = " ".join([END_MARKER, *map(str, held)])
    score.markers.append(symusic.TextMeta(roll.width * ticks, text))
    with replacing(path) as temporary:
        temporary.write_bytes(score.dumps_midi())


def parse_midi(path: Path) -> Any:
    """The file's symusic ``Score``; raises ``UserError`` with the reason when it is no readable MIDI file."""
    import symusic

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content:
        raise UserError(f"{path}: empty file")
    if content[:4] != b"MThd":
        raise UserError(f"{path}: not a MIDI file (it does not begin with MThd)")
    if content[8:10] == b"\0\2" and content[10:12] > b"\0\1":
        raise UserError(f"{path}: type 2, several sequences in one file; save each as type 0 or 1")
    division = int.from_bytes(content[12:14], "big")
    if len(content) >= 14 and division == 0:
        raise UserError(f"{path}: its header gives 0 ticks per quarter note")
    if division & 0x8000:
        raise UserError(f"{path}: its ticks are parts of SMPTE frames, not musical time")
    try:
        return symusic.Score.from_midi(content)
    except (RuntimeError, ValueError) as error:
        reason = str(error).removeprefix("MiniMidi: ").removesuffix(": iostream error")
        raise UserError(f"{path}: damaged or truncated ({' '.join(reason.split())})") from error


def _seconds(score: Any, ticks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Seconds at which each tick falls, by the file's own tempi."""
    changes = {0: 500_000, **{tempo.time: tempo.mspq for tempo in score.tempos if tempo.mspq > 0}}
    starts = np.array(sorted(changes))
    per_tick = np.array([changes[start] for start in starts.tolist()]) / (1e6 * score.ticks_per_quarter)
    elapsed = np.r_[0.0, np.cumsum(np.diff(starts) * per_tick[:-1])]
    segment = np.searchsorted(starts, ticks, side="right") - 1
    return np.asarray(elapsed[segment] + (ticks - starts[segment]) * per_tick[segment])


def _nearest(steps: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.floor(steps + 0.5).astype(np.int64)


def _step(position: float) -> int:
    return int(np.floor(position + 0.5))
