"""Attributes of music: what is measured in a roll, the vocabulary of a corpus, and the labels of its crops.

Labels say what is true of the crop that the model is trained on: density, polyphony, register and velocity are
measured in its tokens, after transposition.  Its key is the one that holds most of it (a key needs more context than a
crop), its tempo and style are those of its song.  :func:`measure_attributes` also measures how well a generated roll
obeys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fractalgen.data.song import Song
from fractalgen.music.bars import main_meter, meter_label
from fractalgen.music.keys import held, key_between, key_changes
from fractalgen.music.labels import DIGITS, KEYS, NAMES, UNITS, Attribute
from fractalgen.music.measures import end_of_music, mean_polyphony, notes_per_bar
from fractalgen.music.tokens import ONSET, Meters, Tempos, midi_velocity

Facts = dict[str, float | str | None]

BINS = 8  # labels of a number: bins that hold equally many crops of the training songs
CROP = 64  # quarters of the excerpts that the bins are made of: the default crop


def measure_attributes(tokens: npt.NDArray[Any], steps_per_quarter: int = 4, velocity_bins: int = 32) -> Facts:
    """Attributes of a roll (128, T) of tokens; what is undefined (silence has no pitch) is None.

    ``density``: notes struck in a bar of four quarters, until the last note ends (but over one bar at least).
    ``polyphony``: notes that sound, on average over the steps in which any does.  ``register``: mean MIDI pitch of the
    notes struck.  ``velocity``: their mean MIDI velocity.  ``key``: the one that holds most of the roll.
    """
    key = key_between(key_changes(tokens, steps_per_quarter), 0, tokens.shape[1])
    return {**numbers(tokens, steps_per_quarter, velocity_bins), "key": key}


def numbers(tokens: npt.NDArray[Any], steps_per_quarter: int, velocity_bins: int) -> Facts:
    """The attributes of :func:`measure_attributes` that are numbers."""
    bar, end = 4 * steps_per_quarter, end_of_music(tokens)
    density = float(notes_per_bar(tokens, bar, max(end, bar)))
    found: Facts = {"density": density, "polyphony": None, "register": None, "velocity": None}
    if end:
        found["polyphony"] = float(mean_polyphony(tokens))
    struck = tokens >= ONSET
    if struck.any():
        found["register"] = float(np.nonzero(struck)[0].mean())
        found["velocity"] = float(midi_velocity(tokens[struck].astype(np.int64) - ONSET, velocity_bins).mean())
    return found


def pace(tempos: Tempos, start: int, stop: int) -> float | None:
    """Quarters a minute, on average over the time of the steps ``start`` to ``stop``."""
    spans = held(tempos, start, stop)
    return sum(steps for steps, _ in spans) / sum(steps / tempo for steps, tempo in spans) if spans else None


def meter_between(meters: Meters, start: int, stop: int) -> str:
    """The meter that holds most of the steps ``start`` to ``stop``, as it is written."""
    lasting = tuple((max(step - start, 0), beats, unit) for step, beats, unit in meters if step < stop)
    return meter_label(main_meter(lasting, stop - start))


class Measured(NamedTuple):
    """What is measured in the excerpts of 64 quarters of a song.

    ``numbers``: float64 (excerpts, 5), a column for each name in ``UNITS``, not a number where undefined.  ``meters``:
    how many excerpts have each.
    """

    numbers: npt.NDArray[np.float64]
    meters: Counter[str]

    @classmethod
    def of(cls, song: Song, steps_per_quarter: int, velocity_bins: int) -> Measured:
        """Measure a song."""
        crop = CROP * steps_per_quarter
        rows: list[list[float]] = []
        meters: Counter[str] = Counter()
        tokens = song.tokens()
        for start in range(0, max(1, song.num_steps - crop // 2), crop):
            facts = numbers(tokens[:, start : start + crop], steps_per_quarter, velocity_bins)
            facts["tempo"] = pace(song.tempos, start, start + crop)
            rows.append([value if isinstance(value := facts[name], float) else np.nan for name in UNITS])
            meters[meter_between(song.meters, start, start + crop)] += 1
        measured = cls(np.array(rows, np.float64), meters)
        return measured.flattened() if song.flat else measured

    def flattened(self) -> Measured:
        """Without the velocities, which mean nothing."""
        heard = [name != "velocity" for name in UNITS]
        return self._replace(numbers=np.where(heard, self.numbers, np.nan))


def vocabulary(measured: Iterable[tuple[str, Measured]]) -> tuple[Attribute, ...]:
    """The attributes by which songs differ, each given by its style and what was measured in it."""
    pairs = list(measured)
    rows = np.concatenate([np.zeros((0, len(UNITS))), *(found.numbers for _, found in pairs)])
    meters = sum((found.meters for _, found in pairs), Counter[str]())
    return attributes_of(rows, meters, [style for style, _ in pairs])


def attributes_of(
    numbers: npt.NDArray[np.float64], meters: Counter[str], styles: Iterable[str]
) -> tuple[Attribute, ...]:
    """The attributes by which training songs differ: the 24 keys, styles and meters found, and bins of the numbers.

    ``numbers``: float64 (excerpts, 5), see :class:`Measured`.  Bins hold equally many of the excerpts; a number that
    hardly varies is left out, and so is a single style or meter.
    """
    columns = dict(zip(UNITS, numbers.T, strict=True))
    made = {name: _bins(name, values[~np.isnan(values)]) for name, values in columns.items()}
    made["key"] = Attribute("key", KEYS) if not np.isnan(columns["polyphony"]).all() else None
    named = tuple(sorted({*styles} - {""}))
    made["style"] = Attribute("style", named) if len(named) > 1 else None
    usual = tuple(name for name, _ in meters.most_common())
    made["meter"] = Attribute("meter", usual) if len(usual) > 1 else None
    return tuple(attribute for name in NAMES if (attribute := made[name]) is not None)


def _bins(name: str, values: npt.NDArray[np.float64]) -> Attribute | None:
    values = np.round(values, DIGITS)
    if not len(values):
        return None
    # borders are values found in the music, each the least of its bin, so that no bin is empty
    borders = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1], method="higher"))
    edges = [values.min(), *borders[borders > values.min()], values.max()]
    if len(edges) == 2:  # one bin: nothing to choose
        return None
    ranks = [round(float((values < edge).mean()), DIGITS) for edge in edges[:-1]]
    return Attribute(name, (), tuple(map(float, edges)), (*ranks, 1.0), UNITS[name])


def random_key_labels(attributes: Sequence[Attribute], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Labels (count, number of attributes) with a random key for each piece and nothing else set."""
    labels = np.zeros((count, len(attributes)), np.int64)
    for column, attribute in enumerate(attributes):
        if attribute.name == "key":
            labels[:, column] = np.random.default_rng(seed).integers(1, attribute.size, count)
    return labels
