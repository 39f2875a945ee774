"""How far one set of rolls is from another: distributions of what is played, distances and overlaps between them.

Three comparisons with the same real reference make the scale: other real music (the floor), generated music, and real
music with its cells shuffled (the ceiling).  Sets should have the same width; bars are counted from step 0.

Statistics that MusPy has (Dong et al., ISMIR 2020) follow its definitions; the one difference is described in
:func:`music_statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fractalgen.features.notes import Ints, StruckNotes, as_rolls, struck_notes
from fractalgen.music.measures import cell_density, mean_polyphony, notes_per_bar, polyphony, ratio
from fractalgen.music.tokens import HOLD, ONSET, SILENCE

Floats = npt.NDArray[np.float64]
Statistics = dict[str, npt.NDArray[Any]]
Comparison = dict[str, dict[str, float | None]]

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)  # natural minor, as in MusPy
SCALES = np.array([[(key - root) % 12 in mode for key in range(12)] for mode in (MAJOR, MINOR) for root in range(12)])
REPETITION_LAGS = (1, 2, 4, 8)  # bars: where phrases of pop songs and chorales come back


@dataclass(frozen=True)
class Statistic:
    """What a statistic counts: one value ``per`` note, time step or roll, and the bins of its histograms."""

    label: str
    unit: str
    per: Literal["note", "step", "roll"]
    bin: float = 1.0
    period: int = 0  # of a circular statistic: the distance from B to C is one semitone


STATISTICS = {
    "pitch": Statistic("pitch", "MIDI pitch", "note"),
    "pitch_class": Statistic("pitch class", "semitones above C", "note", period=12),
    "velocity": Statistic("velocity", "bin", "note"),
    "duration": Statistic("duration", "steps", "note"),
    "inter_onset": Statistic("inter-onset interval", "steps", "note"),
    "polyphony": Statistic("polyphony", "notes", "step"),
    "density": Statistic("density", "% of cells", "roll", 0.25),
    "notes_per_bar": Statistic("notes per bar", "notes", "roll", 2.0),
    "mean_polyphony": Statistic("mean polyphony", "notes", "roll", 0.25),
    "pitch_range": Statistic("pitch range", "semitones", "roll", 4.0),
    "pitch_class_entropy": Statistic("pitch-class entropy", "bits", "roll", 0.1),
    "scale_consistency": Statistic("scale consistency", "share", "roll", 0.02),
    "groove_consistency": Statistic("groove consistency", "share", "roll", 0.05),
    "repetition": Statistic("repetition over bars", "similarity", "roll", 0.05),
    "parallel_fifths": Statistic("parallel fifths", "per 1000", "roll", 20.0),
    "parallel_octaves": Statistic("parallel octaves", "per 1000", "roll", 20.0),
}


def music_statistics(tokens: Any, steps_per_bar: int = 16) -> Statistics:
    """The distributions behind :func:`compare`, of token rolls (n, 128, T): an array of values for each name.

    Of every note struck in a roll (holds from before the excerpt are none; the right edge cuts):

    - ``pitch`` 0 to 127, ``pitch_class`` 0 to 11, ``velocity`` (bin), ``duration`` (steps)
    - ``inter_onset``: steps between successive times at which anything is struck

    Of every step in which anything sounds, held or struck: ``polyphony``, the number of cells that sound.

    Of every roll, NaN where it is undefined (most are in silence):

    - ``density``: per cent of the cells that sound; ``notes_per_bar``: onsets in ``steps_per_bar`` steps
    - ``mean_polyphony``: ``muspy.polyphony``, the mean over the steps in which anything sounds
    - ``pitch_range``: highest minus lowest pitch struck; ``pitch_class_entropy``: of the notes, in bits
    - ``scale_consistency``: share of notes in the best fitting major or natural minor scale
    - ``groove_consistency``: one minus the mean Hamming distance of the onset times of neighbouring bars, up to the
      bar in which the music ends.  MusPy counts an empty bar more when it ends on a bar line; this does not.
    - ``repetition``: see :func:`bar_repetition`
    - ``parallel_fifths``, ``parallel_octaves``: see :func:`parallel_motion`
    """
    rolls = as_rolls(tokens)
    count = len(rolls)
    notes = struck_notes(rolls)
    voices = polyphony(rolls)
    highest: npt.NDArray[np.uint8] = np.max(rolls, axis=1)  # token of each step: onsets are above holds above silence
    struck, sounding = highest >= ONSET, highest != SILENCE
    where, when = np.nonzero(struck)
    classes = _counts(notes, count, notes.pitch % 12, 12)
    fifths, octaves = parallel_motion(rolls)
    return {
        "pitch": notes.pitch,
        "pitch_class": notes.pitch % 12,
        "velocity": notes.velocity,
        "duration": notes.duration,
        "inter_onset": np.diff(when)[np.diff(where) == 0],
        "polyphony": voices[sounding],
        "density": 100 * cell_density(rolls),
        "notes_per_bar": notes_per_bar(rolls, steps_per_bar),
        "mean_polyphony": mean_polyphony(rolls),
        "pitch_range": pitch_range(notes, count),
        "pitch_class_entropy": entropy(classes),
        "scale_consistency": ratio((classes @ SCALES.T).max(axis=1), classes.sum(axis=1)),
        "groove_consistency": _groove_consistency(struck, sounding, steps_per_bar),
        "repetition": bar_repetition(rolls, steps_per_bar),
        "parallel_fifths": fifths,
        "parallel_octaves": octaves,
    }


def _counts(notes: StruckNotes, rolls: int, values: Ints, bins: int) -> Ints:
    """Histograms (rolls, bins) of a value of the notes."""
    return np.bincount(notes.roll * bins + values, minlength=rolls * bins).reshape(rolls, bins)


def pitch_range(notes: StruckNotes, rolls: int) -> Floats:
    """Semitones from the lowest to the highest note of each roll; NaN where there is none."""
    used = _counts(notes, rolls, notes.pitch, 128) > 0
    span = 127.0 - used[:, ::-1].argmax(axis=1) - used.argmax(axis=1)
    return np.where(used.any(axis=1), span, math.nan)


def entropy(counts: Ints) -> Floats:
    """Entropy in bits of each row of counts."""
    shares = ratio(counts, counts.sum(axis=1, keepdims=True).repeat(counts.shape[1], axis=1))
    return -(shares * np.log2(np.where(shares == 0, 1.0, shares))).sum(axis=1) + 0.0  # no -0.0


def _bars(steps: npt.NDArray[Any], steps_per_bar: int) -> npt.NDArray[Any]:
    """(..., T) to (..., bars, steps_per_bar); the last bar is filled up with zeros."""
    missing = -steps.shape[-1] % steps_per_bar
    padded = np.pad(steps, [(0, 0)] * (steps.ndim - 1) + [(0, missing)])
    return padded.reshape(*steps.shape[:-1], -1, steps_per_bar)


def _groove_consistency(struck: npt.NDArray[np.bool_], sounding: npt.NDArray[np.bool_], steps_per_bar: int) -> Floats:
    grooves = _bars(struck, steps_per_bar)
    steps = np.arange(1, sounding.shape[1] + 1)
    end = np.max(sounding * steps, axis=1, initial=0)  # (n,) steps until the music ends
    differing = (grooves[:, 1:] != grooves[:, :-1]).sum(axis=2)
    counted = np.arange(1, grooves.shape[1]) * steps_per_bar < end[:, None]
    return 1.0 - ratio((differing * counted).sum(axis=1), steps_per_bar * counted.sum(axis=1))


def bar_repetition(tokens: Any, steps_per_bar: int = 16) -> Floats:
    """How much each roll of (n, 128, T) repeats itself, 0 to 1: (n,), NaN with fewer than two bars or no onsets.

    The Jaccard similarity of two bars is the share of their onsets (step in the bar, pitch) that both have.  A bar
    counts with its best similarity to the bars 1, 2, 4 and 8 earlier; the result is the mean over the bars, from the
    second, in which anything is struck.
    """
    similarity, size = bar_similarity(tokens, steps_per_bar)
    best = np.zeros(size.shape)
    for lag in REPETITION_LAGS:
        best[:, lag:] = np.maximum(best[:, lag:], np.diagonal(similarity, -lag, 1, 2))
    counted = size[:, 1:] > 0
    return ratio((best[:, 1:] * counted).sum(axis=1), counted.sum(axis=1))


def bar_similarity(tokens: Any, steps_per_bar: int = 16) -> tuple[Floats, Ints]:
    """Jaccard similarity (n, bars, bars) of the onsets (step in the bar, pitch) of all bars of each roll.

    Also the number of onsets of each bar, (n, bars).  Two empty bars have similarity 0.
    """
    onsets = np.moveaxis(_bars(as_rolls(tokens) >= ONSET, steps_per_bar), 1, 2)  # (n, bars, pitch, step)
    bars = onsets.reshape(*onsets.shape[:2], -1)
    size = bars.sum(axis=2)
    common = np.stack([one @ one.T for one in (roll.astype(np.float32) for roll in bars)]).astype(np.float64)
    return common / np.maximum(size[:, :, None] + size[:, None] - common, 1), size


def parallel_motion(tokens: Any) -> tuple[Floats, Floats]:
    """Parallel fifths and octaves per 1000 pairs of voices that move together, of each roll: two arrays (n,).

    A piano has no fixed voices, so they are read off chord by chord.  A chord is all that sounds, struck or held, at
    a step at which anything is struck.  Between one chord and the next, voices are the pitches by rank when both
    chords have the same number of them; otherwise only the lowest and the highest pitch are followed.  A voice moves
    when it has another pitch, the new note is struck and the old one is not held on.  A pair moves together when both
    voices move in the same direction; it is parallel when it is a fifth (7 semitones, octaves disregarded), or an
    octave (12, 24...), before and after.  A roll in which no pair moves together has NaN.
    """
    rolls = as_rolls(tokens)
    roll, step = np.nonzero((rolls >= ONSET).any(axis=1))
    pitches, size = _chords(rolls[roll, :, step] != SILENCE)
    follows = np.flatnonzero(np.diff(roll) == 0)
    same = size[follows] == size[follows + 1]
    two = np.minimum(size[follows], size[follows + 1]) > 1
    outer = np.stack([pitches[:, 0], pitches[np.arange(len(size)), size - 1]], axis=1)

    counts = np.zeros((3, len(rolls)))  # together, fifths, octaves
    for voices, at in ((pitches, follows[same]), (outer, follows[two & ~same])):
        old, new = voices[at], voices[at + 1]
        where, when = roll[at, None], step[at + 1, None]
        moves = (rolls[where, new, when] >= ONSET) & (rolls[where, old, when] != HOLD)
        motion = np.sign(new - old) * moves
        for lag in range(1, voices.shape[1]):  # all pairs of voices, by the difference of their ranks
            together = (motion[:, lag:] == motion[:, :-lag]) & (motion[:, lag:] != 0)
            before, after = ((chord[:, lag:] - chord[:, :-lag]) % 12 for chord in (old, new))
            parallel = together & (before == after)
            for index, pairs in enumerate((together, parallel & (after == 7), parallel & (after == 0))):
                counts[index] += np.bincount(roll[at], pairs.sum(axis=1), minlength=len(rolls))
    return ratio(1000 * counts[1], counts[0]), ratio(1000 * counts[2], counts[0])


def _chords(sounding: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int16], Ints]:
    """Pitches (chords, voices) from the lowest up, padded with 0, and their number (chords,)."""
    chord, pitch = np.nonzero(sounding)
    size = sounding.sum(axis=1)
    voice = np.arange(len(chord)) - np.repeat(np.cumsum(size) - size, size)
    pitches = np.zeros((len(size), int(size.max(initial=1))), np.int16)
    pitches[chord, voice] = pitch
    return pitches, size


def compare(reference: Statistics, sample: Statistics) -> Comparison:
    """Distance of two sets for each statistic; undefined values are left out, and what cannot be said is None.

    - ``reference_mean``, ``sample_mean`` (None for the circular ``pitch_class``)
    - ``wasserstein``: Wasserstein-1 distance in the unit of the statistic (:data:`STATISTICS`), for ``pitch_class``
      on the circle of twelve semitones; ``scaled``: the same in standard deviations of the reference
    - ``overlap``: overlapping area of the two normalised histograms, 0 to 1, with the fixed bins of
      :data:`STATISTICS`.  Yang & Lerch (On the evaluation of generative models in music, 2020) smooth with kernels
      first; fixed bins also hold for shares that pile up at 0 or 1, and do not depend on the sets.
    """
    return {name: _compare(STATISTICS[name], reference[name], sample[name]) for name in STATISTICS}


def mean_distance(found: Comparison) -> float:
    """Mean over the statistics of the Wasserstein distance in standard deviations of the reference."""
    scaled = [figures["scaled"] for figures in found.values() if figures["scaled"] is not None]
    return float(np.mean(scaled)) if scaled else math.nan


def _compare(statistic: Statistic, reference: npt.NDArray[Any], sample: npt.NDArray[Any]) -> dict[str, float | None]:
    one, two = (values[~np.isnan(values)].astype(np.float64) for values in (reference, sample))
    result = dict.fromkeys(("reference_mean", "sample_mean", "wasserstein", "scaled", "overlap"), math.nan)
    if not statistic.period:
        result |= {key: float(x.mean()) for key, x in (("reference_mean", one), ("sample_mean", two)) if len(x)}
    if len(one) and len(two):
        shares = _shares(one, two, statistic.bin, statistic.period)
        if statistic.period:
            distance, spread = circular_wasserstein(*shares), _circular_deviation(shares[0])
        else:
            distance, spread = wasserstein(one, two), float(one.std())
        scaled = distance / spread if spread else math.nan
        result |= {"wasserstein": distance, "scaled": scaled, "overlap": float(np.minimum(*shares).sum())}
    return {key: None if math.isnan(value) else value for key, value in result.items()}


def _shares(one: npt.NDArray[Any], two: npt.NDArray[Any], width: float, bins: int = 0) -> tuple[Floats, Floats]:
    """Normalised histograms of two non-negative samples over the same bins, which begin at 0."""
    # values on a bin's edge, such as 0.3 / 0.05, must not fall below it by rounding
    binned = [np.floor(values / width + 1e-9).astype(np.int64) for values in (one, two)]
    bins = max(bins, *(1 + int(numbers.max()) for numbers in binned))
    first, second = (np.bincount(numbers, minlength=bins) / len(numbers) for numbers in binned)
    return first, second


def wasserstein(one: npt.NDArray[Any], two: npt.NDArray[Any]) -> float:
    """Wasserstein-1 (earth mover's) distance of two samples of numbers: the area between their distributions."""
    points = np.sort(np.concatenate([one, two]))
    below = [np.searchsorted(np.sort(values), points[:-1], side="right") / len(values) for values in (one, two)]
    return float(np.abs(below[0] - below[1]) @ np.diff(points))


def circular_wasserstein(one: Floats, two: Floats) -> float:
    """Wasserstein-1 distance, in bins, of two histograms on a circle (Rabin, Delon & Gousseau 2011)."""
    flow = np.cumsum(one - two)
    return float(np.abs(flow - np.median(flow)).sum())


def _circular_deviation(shares: Floats) -> float:
    """Root of half the mean squared distance of two draws: on a line, the standard deviation."""
    bins = np.arange(len(shares))
    apart = np.abs(bins - bins[:, None])
    return math.sqrt(shares @ np.minimum(apart, len(shares) - apart) ** 2 @ shares / 2)


def ratio_error(values: npt.ArrayLike, counts: npt.ArrayLike, songs: npt.ArrayLike) -> float:
    """Standard error of ``sum(values) / sum(counts)`` over songs, whose excerpts are not independent.

    That of a ratio estimator, Cochran: Sampling Techniques (1977), section 2.11.  NaN for a single song.
    """
    names, index = np.unique(songs, return_inverse=True)
    value, count = np.bincount(index, values), np.bincount(index, counts)
    if len(names) < 2 or not count.sum():
        return math.nan
    residuals = value - value.sum() / count.sum() * count
    return float(np.sqrt(len(names) / (len(names) - 1) * (residuals**2).sum()) / count.sum())


def shuffled(tokens: Any, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Rolls (n, 128, T) whose cells are permuted within each roll; nothing is repaired, so most holds are orphans."""
    rolls = as_rolls(tokens)
    return generator.permuted(rolls.reshape(len(rolls), -1), axis=1).reshape(rolls.shape)


def three_rows(
    reference: Any, other: Any, samples: Any, generator: np.random.Generator, steps_per_bar: int = 16
) -> dict[str, Comparison]:
    """Generated rolls between floor and ceiling, all compared with the same real ``reference`` rolls.

    ``real``: ``other`` real rolls; ``generated``: ``samples``; ``shuffled``: the cells of the ``other`` rolls, shuffled
    (a ceiling for all that depends on where cells are; density, velocities and notes per bar are those of ``real``).
    Small sets are farther from the reference by chance alone, so no more of ``other`` is used than there are samples:
    a random choice.  Take ``reference`` and ``other`` from different songs.
    """
    known, other, samples = as_rolls(reference), as_rolls(other), as_rolls(samples)
    if len(other) > len(samples):
        other = other[np.sort(generator.choice(len(other), len(samples), replace=False))]
    rows = {"real": other, "generated": samples, "shuffled": shuffled(other, generator)}
    base = music_statistics(known, steps_per_bar)
    return {name: compare(base, music_statistics(rolls, steps_per_bar)) for name, rolls in rows.items()}


def histograms(reference: Statistics, sample: Statistics) -> dict[str, dict[str, Any]]:
    """Normalised histograms, for plots, of what is counted per note and per step.

    Each has ``values``, the shares ``real`` (of the reference) and ``generated`` (of the sample), and the ``unit`` of
    the values.  Without a note there is no histogram.
    """
    result = {}
    for name, statistic in STATISTICS.items():
        if statistic.per == "roll" or not len(reference[name]) or not len(sample[name]):
            continue
        shares = _shares(reference[name], sample[name], statistic.bin, statistic.period)
        played = np.flatnonzero(shares[0] + shares[1])
        values = np.arange(statistic.period) if statistic.period else np.arange(played[0], played[-1] + 1)
        result[name] = {
            "values": values.tolist(),
            "real": shares[0][values].tolist(),
            "generated": shares[1][values].tolist(),
            "unit": statistic.unit,
        }
    return result


def comparison_table(rows: Mapping[str, Comparison]) -> str:
    """A text table of :func:`three_rows`: mean, distance and overlap of each statistic, and the mean distance."""
    names = {name: f"{statistic.label} ({statistic.unit})" for name, statistic in STATISTICS.items()}
    width = max(map(len, names.values()))
    columns = "".join(f"{text:>10}" for text in ("mean", "distance", "overlap"))
    lines = [
        f"{'':{width + 11}}" + "".join(f"{name:>30}" for name in rows),
        f"{'':{width}}{'reference':>11}" + columns * len(rows),
    ]
    for name, text in names.items():
        values = [next(iter(rows.values()))[name]["reference_mean"]]
        values += [row[name][key] for row in rows.values() for key in ("sample_mean", "wasserstein", "overlap")]
        cells = ("-" if value is None else f"{value:.3g}" for value in values)
        lines.append(f"{text:{width + 1}}" + "".join(f"{cell:>10}" for cell in cells))
    last = f"{'mean distance (deviations of the reference)':{width + 11}}"
    for mean in map(mean_distance, rows.values()):
        last += f"{'-' if math.isnan(mean) else f'{mean:.3f}':>20}{'':10}"
    lines.append(last)
    return "\n".join(lines)
