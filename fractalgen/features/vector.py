"""What tells one excerpt of piano music from another: features of each roll, for the two-sample test.

Every feature is one number per excerpt.  What is undefined (the intervals of a melody of one note) is 0, so that any
roll, silent ones included, has finite features.  Voices are read off the notes: the *melody* is every note that is the
highest one sounding when it is struck, the *bass* the lowest note struck in each half bar, *inner* notes are the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.features.notes import Ints, StruckNotes, as_rolls, struck_notes
from fractalgen.features.statistics import Floats, Statistics, bar_similarity, entropy, music_statistics, pitch_range
from fractalgen.features.table import FEATURES, LAGS
from fractalgen.music.chord_estimate import estimate_chords, templates
from fractalgen.music.chords import FIRST, QUALITIES
from fractalgen.music.keys import guess_key
from fractalgen.music.measures import by_pitch_class, polyphony, ratio
from fractalgen.music.tokens import NOTE, PITCHES, SILENCE
from fractalgen.music.voices import LEFT, REACH, hands

LOW, E3, HIGH = 48, 52, 72  # C3 and C5 are the borders of the three registers; a bass note is below E3
PAIRS = {"octaves": (0,), "semitones": (1,), "seconds": (2,), "thirds": (3, 4), "fifths": (5,), "tritones": (6,)}
"""Interval classes in semitones: octaves are disregarded, and an interval is the same as its inversion."""
Values = dict[str, npt.NDArray[Any]]


def music_features(tokens: Any, steps_per_bar: int = 16) -> dict[str, Floats]:
    """The features of each roll of (n, 128, T): an array (n,) for each name of :data:`FEATURES`, all finite.

    ``steps_per_bar``: bars are counted from step 0, and a beat is a quarter of a bar.
    """
    music = _Music(as_rolls(tokens), steps_per_bar)
    values: dict[str, npt.NDArray[Any]] = {}
    for group in (_amount, _rhythm, _melody, _bass, _harmony, _form, _dynamics, _texture):
        values |= group(music)
    return {name: np.nan_to_num(values[name].astype(np.float64)) for name in FEATURES}


def feature_rows(tokens: Any, steps_per_bar: int = 16) -> Floats:
    """The same as rows (n, features), in the order of :data:`FEATURES`."""
    return np.stack(list(music_features(tokens, steps_per_bar).values()), 1)


@dataclass(frozen=True, eq=False)
class _Music:
    """Rolls (n, 128, T), and what several groups of features need of them."""

    rolls: npt.NDArray[np.uint8]
    bar: int

    def __len__(self) -> int:
        return len(self.rolls)

    @property
    def width(self) -> int:
        return self.rolls.shape[2]

    @property
    def bars(self) -> int:
        """Bars that are begun."""
        return -(-self.width // self.bar)

    @cached_property
    def notes(self) -> StruckNotes:
        return struck_notes(self.rolls)

    @cached_property
    def sounding(self) -> npt.NDArray[np.bool_]:
        return self.rolls != SILENCE

    @cached_property
    def statistics(self) -> Statistics:
        return music_statistics(self.rolls, self.bar)

    @cached_property
    def place(self) -> Ints:
        """Step in its bar of each note."""
        return self.notes.step % self.bar

    @cached_property
    def in_bar(self) -> Ints:
        """Number of the bar of each note, counted through all rolls."""
        return self.notes.roll * self.bars + self.notes.step // self.bar

    @cached_property
    def grips(self) -> Ints:
        """Index of the first (lowest) note of all that are struck together."""
        moment = self.notes.roll * self.width + self.notes.step
        return np.flatnonzero(np.diff(moment, prepend=-1))

    @cached_property
    def highest(self) -> Ints:
        """Highest pitch that sounds at each step, (n, T)."""
        return PITCHES - 1 - self.sounding[:, ::-1].argmax(axis=1)

    @cached_property
    def is_melody(self) -> npt.NDArray[np.bool_]:
        return self.notes.pitch == self.highest[self.notes.roll, self.notes.step]

    @cached_property
    def basses(self) -> Ints:
        """Index of the lowest note struck in each half bar, in order; no entry where nothing is struck."""
        half = 2 * self.in_bar + (2 * self.place >= self.bar)
        order = np.lexsort((self.notes.pitch, half))
        return order[np.flatnonzero(np.diff(half[order], prepend=-1))]

    @cached_property
    def beats(self) -> Ints:
        """First step of each quarter of a bar."""
        steps = np.unique(-(-np.arange(4 * self.bars) * self.bar // 4))
        return steps[steps < self.width]

    @cached_property
    def chords(self) -> Ints:
        """Estimated chord of each beat, (n, beats): its row in :func:`templates`, -1 where there is none."""
        downbeats = self.beats[self.beats % self.bar == 0]
        codes = np.stack([estimate_chords(roll, self.beats, downbeats) for roll in self.rolls])
        return np.where(codes < FIRST, -1, (codes - FIRST) // 12)

    def per_bar(self, kept: npt.NDArray[np.bool_]) -> Floats:
        """Number per bar of the notes that are kept."""
        return np.bincount(self.notes.roll[kept], minlength=len(self)) * self.bar / self.width

    def share(self, kept: npt.NDArray[np.bool_]) -> Floats:
        """Share of the notes that are kept."""
        return _mean(kept, self.notes.roll, len(self))

    def intervals(self, line: Ints) -> tuple[Ints, Ints]:
        """Semitones from each note of a line (by index) to the next one of the same roll, and the roll."""
        roll = self.notes.roll[line]
        same = roll[1:] == roll[:-1]
        return np.diff(self.notes.pitch[line])[same], roll[1:][same]


def _mean(values: npt.NDArray[Any], group: Ints, count: int) -> Floats:
    """Mean of the values of each of ``count`` groups; NaN for an empty one."""
    return ratio(np.bincount(group, values, count), np.bincount(group, minlength=count))


def _deviation(values: npt.NDArray[Any], group: Ints, count: int) -> Floats:
    """Standard deviation of the values of each group."""
    return np.sqrt(_mean((values - _mean(values, group, count)[group]) ** 2, group, count))


def _correlation(one: npt.NDArray[Any], two: npt.NDArray[Any], group: Ints, count: int) -> Floats:
    """Correlation of two values in each group; NaN where one of them is constant."""
    away = [values - _mean(values, group, count)[group] for values in (one, two)]
    spread = _deviation(one, group, count) * _deviation(two, group, count)
    return ratio(_mean(away[0] * away[1], group, count), np.where(spread > 1e-9, spread, 0.0))


def _amount(music: _Music) -> Values:
    notes, count = music.notes, len(music)
    in_bars = np.bincount(music.in_bar, minlength=count * music.bars).reshape(count, music.bars)
    heard = polyphony(music.rolls) > 0  # (n, T)
    filled = np.logical_or.reduceat(heard, np.arange(0, music.width, music.bar), axis=1)
    struck = in_bars.any(axis=1)
    first = np.append(notes.step, 0)[np.searchsorted(notes.roll, np.arange(count))]
    return {
        "notes": music.statistics["notes_per_bar"],
        "notes_spread": in_bars.std(axis=1),
        "notes_first": in_bars[:, 0],
        "notes_last": in_bars[:, -1],
        "notes_low": music.per_bar(notes.pitch < LOW),
        "notes_middle": music.per_bar((notes.pitch >= LOW) & (notes.pitch < HIGH)),
        "notes_high": music.per_bar(notes.pitch >= HIGH),
        "density": music.statistics["density"],
        "empty_bars": 1 - filled.mean(axis=1),
        "silence": 1 - heard.mean(axis=1),
        "silence_before": np.where(struck, first, music.width) / music.bar,
        "silence_after": np.where(heard.any(axis=1), heard[:, ::-1].argmax(axis=1), music.width) / music.bar,
    }


def _rhythm(music: _Music) -> Values:
    notes, bar, place = music.notes, music.bar, music.place
    finest = np.select([place == 0, 4 * place % bar == 0, 8 * place % bar == 0], [0, 1, 2], 3)
    names = ("downbeats", "beats", "half_beats", "off_beats")
    values: Values = {name: music.share(finest == level) for level, name in enumerate(names)}
    size = np.diff(music.grips, append=len(notes.roll))
    together = notes.roll[music.grips]
    values |= {f"chords_{k}": _mean(np.minimum(size, 4) == k, together, len(music)) for k in (1, 2, 3, 4)}
    lengths = np.searchsorted(np.array([1, 2, 4, 8]) * bar, 8 * notes.duration, side="right")
    for name, k in (("shorter", 0), ("one_beat", 2), ("two_beats", 3), ("longer", 4)):
        values[name] = music.share(lengths == k)
    return values | {
        "onsets": np.bincount(together, minlength=len(music)) * bar / music.width,
        "groove": music.statistics["groove_consistency"],
        "held_over": music.share(place + notes.duration > bar),
    }


def _melody(music: _Music) -> Values:
    notes, count = music.notes, len(music)
    line = np.flatnonzero(music.is_melody)
    pitch, roll = notes.pitch[line], notes.roll[line]
    intervals, where = music.intervals(line)
    sizes = np.searchsorted((1, 3, 5), np.abs(intervals), side="right")
    names = ("melody_repeats", "melody_steps", "melody_skips", "melody_leaps")
    values: Values = {name: _mean(sizes == k, where, count) for k, name in enumerate(names)}
    moves = np.flatnonzero(intervals)
    goes_on = where[moves][1:] == where[moves][:-1]
    turns = np.sign(intervals[moves])[1:] != np.sign(intervals[moves])[:-1]
    same = roll[1:] == roll[:-1]
    held = notes.step[line][:-1] + notes.duration[line][:-1] >= notes.step[line][1:]
    return values | {
        "melody_notes": music.per_bar(music.is_melody),
        "melody_pitch": _mean(pitch, roll, count),
        "melody_range": pitch_range(StruckNotes(*(column[line] for column in notes)), count),
        "melody_turns": _mean(turns[goes_on], where[moves][1:][goes_on], count),
        "melody_legato": _mean(held[same], roll[1:][same], count),
    }


def _bass(music: _Music) -> Values:
    notes, count, line = music.notes, len(music), music.basses
    pitch, roll = notes.pitch[line], notes.roll[line]
    intervals, where = music.intervals(line)
    sizes = np.abs(intervals)
    half = notes.step[line] // music.bar * music.bar + np.where(2 * music.place[line] >= music.bar, music.bar // 2, 0)
    chord = music.chords[roll, np.searchsorted(music.beats, half, side="right") - 1]
    deep = (music.place == 0) & (notes.pitch < E3)
    bars = np.unique(music.in_bar[deep]) // music.bars
    return {
        "bass_pitch": _mean(pitch, roll, count),
        "bass_bars": np.bincount(bars, minlength=count) / music.bars,
        "bass_roots": _mean((chord >= 0) & (chord // len(QUALITIES) == pitch % 12), roll, count),
        "bass_steps": _mean((sizes == 1) | (sizes == 2), where, count),
        "bass_fifths": _mean((sizes == 5) | (sizes == 7), where, count),
        "bass_octaves": _mean(sizes >= 12, where, count),
    }


def _harmony(music: _Music) -> Values:
    notes, count, chords = music.notes, len(music), music.chords
    classes = by_pitch_class(music.sounding)  # (n, 12, T)
    by_beat = np.add.reduceat(classes, music.beats, axis=2).transpose(0, 2, 1)
    belongs = templates()[0][chords] & (chords >= 0)[..., None]
    changes = chords[:, 1:] != chords[:, :-1]
    halves = [classes[:, :, part].sum(axis=2) for part in (slice(music.width // 2), slice(music.width // 2, None))]
    lengths = np.prod([np.linalg.norm(half, axis=1) for half in halves], axis=0)
    keys = [
        [guess_key(half)[0] for half in (roll[:, : music.width // 2], roll[:, music.width // 2 :])]
        for roll in music.rolls
    ]
    per_bar = np.bincount(12 * music.in_bar + notes.pitch % 12, minlength=12 * count * music.bars).reshape(-1, 12)
    full = np.flatnonzero(per_bar.any(axis=1))
    values: Values = {
        "chord_fit": ratio((by_beat * belongs).sum(axis=(1, 2)), by_beat.sum(axis=(1, 2))),
        "chord_changes": changes.sum(axis=1) / music.bars,
        "chord_off_downbeat": ratio(changes[:, music.beats[1:] % music.bar > 0].sum(axis=1), changes.sum(axis=1)),
        "pitch_entropy": music.statistics["pitch_class_entropy"],
        "bar_entropy": _mean(entropy(per_bar[full]), full // music.bars, count),
        "scale": music.statistics["scale_consistency"],
        "key_stays": np.array([one is not None and one == two for one, two in keys]),
        "halves": ratio((halves[0] * halves[1]).sum(axis=1), lengths),
        "parallel_fifths": music.statistics["parallel_fifths"],
        "parallel_octaves": music.statistics["parallel_octaves"],
    }
    roll = notes.roll[music.grips]
    together = music.sounding[roll, :, notes.step[music.grips]]
    heard = by_pitch_class(together)
    pairs = np.stack([(heard * np.roll(heard, apart, axis=1)).sum(axis=1) for apart in range(7)], axis=1)
    pairs[:, 0] -= heard.sum(axis=1)  # not a note with itself
    pairs = np.stack([np.bincount(roll, found, count) for found in pairs.T], axis=1) / (2, 1, 1, 1, 1, 1, 2)
    values |= {name: ratio(pairs[:, apart].sum(axis=1), pairs.sum(axis=1)) for name, apart in PAIRS.items()}
    clusters = sum((together[:, lag:] & together[:, :-lag]).sum(axis=1) for lag in (1, 2))
    return values | {"clusters": _mean(np.asarray(clusters), roll, count)}


def _form(music: _Music) -> Values:
    likeness, size = bar_similarity(music.rolls, music.bar)
    counted = size > 0
    values: Values = {}
    for lag in LAGS:
        found = np.diagonal(likeness, -lag, 1, 2)  # (n, bars - lag)
        values[f"like_{lag}"] = ratio((found * counted[:, lag:]).sum(axis=1), counted[:, lag:].sum(axis=1))
    earlier = np.tril(likeness, -1)
    best = earlier.max(axis=2)
    later = counted & (np.arange(music.bars) > 0)
    return values | {
        "like_best": ratio((best * later).sum(axis=1), later.sum(axis=1)),
        "like_most": best.max(axis=1),
        "bars_again": ratio(((best == 1) & later).sum(axis=1), later.sum(axis=1)),
    }


def _dynamics(music: _Music) -> Values:
    notes, count = music.notes, len(music)
    velocity, roll = notes.velocity, notes.roll

    def difference(chosen: npt.NDArray[np.bool_]) -> Floats:
        """Mean velocity of the notes that are chosen minus that of the others."""
        return _mean(velocity[chosen], roll[chosen], count) - _mean(velocity[~chosen], roll[~chosen], count)

    in_bars = (velocity, music.in_bar, count * music.bars)
    several = np.flatnonzero(np.bincount(music.in_bar, minlength=count * music.bars) > 1)
    struck = np.unique(music.in_bar)
    chords = np.diff(music.grips, append=len(roll)) > 1
    loudest, softest = (
        extreme.reduceat(velocity, music.grips) if len(roll) else velocity for extreme in (np.maximum, np.minimum)
    )
    line = np.flatnonzero(music.is_melody)
    same = roll[line][1:] == roll[line][:-1]
    before, after, where = velocity[line][:-1][same], velocity[line][1:][same], roll[line][1:][same]
    return {
        "velocity": _mean(velocity, roll, count),
        "velocity_in_bar": _mean(_deviation(*in_bars)[several], several // music.bars, count),
        "velocity_of_bars": _deviation(_mean(*in_bars)[struck], struck // music.bars, count),
        "velocity_lead": difference(music.is_melody),
        "velocity_together": _mean((loudest - softest)[chords], roll[music.grips][chords], count),
        "velocity_before": _correlation(before, after, where, count),
        "velocity_same": _mean(before == after, where, count),
        "velocity_downbeat": difference(music.place == 0),
        "velocity_pitch": _correlation(velocity, notes.pitch, roll, count),
    }


def _texture(music: _Music) -> Values:
    notes, count = music.notes, len(music)
    voices = polyphony(music.rolls)
    sounds = np.nonzero(voices)
    roll, step = notes.roll[music.grips], notes.step[music.grips]
    lowest = music.sounding.argmax(axis=1)
    played = np.zeros(len(notes.roll), NOTE)
    played["pitch"], played["start"], played["duration"] = notes.pitch, notes.step, notes.duration
    rolls = np.split(played, np.searchsorted(notes.roll, np.arange(1, count)))
    left = np.concatenate([hands(one) == LEFT for one in rolls])
    inner = ~music.is_melody
    inner[music.basses] = False
    # notes of one hand at one moment, from the lowest to the highest
    moment = 2 * (notes.roll * music.width + notes.step) + left
    order = np.lexsort((notes.pitch, moment))
    first = np.flatnonzero(np.diff(moment[order], prepend=-1))
    last = np.append(first, len(order))[1:] - 1
    wide = notes.pitch[order[last]] - notes.pitch[order[first]] > REACH
    places = np.unique(moment[order[first]][wide] // 2)
    pitches = [_mean(notes.pitch[hand], notes.roll[hand], count) for hand in (~left, left)]
    return {
        "polyphony": music.statistics["mean_polyphony"],
        "polyphony_spread": _deviation(voices[sounds], sounds[0], count),
        "pitch_range": music.statistics["pitch_range"],
        "width": _mean((music.highest - lowest)[roll, step], roll, count),
        "inner": music.share(inner),
        "hands": pitches[0] - pitches[1],
        "wide_grips": ratio(np.bincount(places // music.width, minlength=count), np.bincount(roll, minlength=count)),
    }
