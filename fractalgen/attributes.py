"""Attributes of music: what is measured in a roll, the vocabulary of a corpus, and the labels of its crops.

Labels say what is true of the crop that the model is trained on: density, polyphony, register and velocity are
measured in its tokens, after transposition.  Its key is the one that holds most of it (a key needs more context than a
crop), its tempo and style are those of its song.  :func:`measure` is also what tells how well a generated roll obeyed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fractalgen.pianoroll import ONSET, SILENCE, Tempos, midi_velocity
from fractalgen.song import Song
from fractalgen.vocabulary import DIGITS, KEYS, NAMES, UNITS, Attribute

Keys = tuple[tuple[int, str], ...]
Facts = dict[str, float | str | None]
Value = TypeVar("Value")

BINS = 8  # labels of a number: bins that hold equally many crops of the training songs
CROP = 64  # quarters of the excerpts that the bins are made of: the default crop
# How usual each degree of the scale is, counted from the tonic, in major and in minor: J. Albrecht and D. Shanahan,
# "The Use of Large Corpora to Train a New Type of Key-Finding Algorithm", Music Perception 31 (2013).
PROFILES = np.array(
    [
        [0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081],
        [0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052],
    ]
)
KEY_WINDOW = 16  # quarters that are heard in one key
# What a change of key costs, where a window fits its key by some 0.25.  Found, like the profiles (out of five published
# sets), by agreement with the keys that POP909 annotates, which another program found in audio: 89 % of all bars, 83 %
# of those in songs that change their key.  Of the songs in dispute twice as many end on the estimated tonic.
KEY_CHANGE = 0.5


def measure(tokens: npt.NDArray[Any], steps_per_quarter: int = 4, velocity_bins: int = 32) -> Facts:
    """Attributes of a roll (128, T) of tokens; what cannot be told of it (silence has no pitch) is None.

    ``density``: notes struck in a bar of four quarters, until the last note ends (but over one bar at least).
    ``polyphony``: notes that sound, on average over the steps in which any does.  ``register``: mean MIDI pitch of the
    notes struck.  ``velocity``: their mean MIDI velocity.  ``key``: the one that holds most of the roll.
    """
    key = key_between(key_changes(tokens, steps_per_quarter), 0, tokens.shape[1])
    return {**numbers(tokens, steps_per_quarter, velocity_bins), "key": key}


def numbers(tokens: npt.NDArray[Any], steps_per_quarter: int, velocity_bins: int) -> Facts:
    """The attributes of :func:`measure` that are numbers."""
    struck, sounding = tokens >= ONSET, tokens != SILENCE
    voices = sounding.sum(axis=0)
    pitches = np.nonzero(struck)[0]
    bar = 4 * steps_per_quarter
    end = int(np.flatnonzero(voices)[-1]) + 1 if voices.any() else 0
    found: Facts = {
        "density": len(pitches) / max(end / bar, 1.0),
        "polyphony": None,
        "register": None,
        "velocity": None,
    }
    if end:
        found["polyphony"] = float(voices[voices > 0].mean())
    if len(pitches):
        found["register"] = float(pitches.mean())
        found["velocity"] = float(midi_velocity(tokens[struck].astype(np.int64) - ONSET, velocity_bins).mean())
    return found


def key_changes(tokens: npt.NDArray[Any], steps_per_quarter: int = 4) -> Keys:
    """Estimated keys of a roll (128, T): (step, key) from which each holds; none for a silent roll.

    The pitch classes that sound in each window are correlated with the profiles of the 24 keys (the algorithm of
    Krumhansl and Schmuckler, in: C. Krumhansl, Cognitive Foundations of Musical Pitch, 1990); a Viterbi search finds
    the keys of all windows that fit best together, given what a change costs.
    """
    window = KEY_WINDOW * steps_per_quarter
    padded = np.pad(tokens != SILENCE, ((0, 0), (0, -tokens.shape[1] % window)))
    sounding = padded.reshape(len(tokens), -1, window).sum(-1)
    classes = np.zeros((12, sounding.shape[1]))
    np.add.at(classes, np.arange(len(tokens)) % 12, sounding)
    if not classes.any():
        return ()
    classes *= classes.shape[1] / classes.sum()
    profiles = PROFILES - PROFILES.mean(axis=1, keepdims=True)
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True)
    # the histogram is turned, not the profile: so transposed music gives the very same sums, of another key
    turned = classes.T[:, (np.arange(12)[:, None] + np.arange(12)) % 12]
    fit = (turned[:, None] * profiles[:, None]).sum(-1).reshape(-1, len(KEYS))

    best, sources = fit[0], []
    for scores in fit[1:]:
        jump = int(best.argmax())
        stays = best >= best[jump] - KEY_CHANGE
        sources.append(np.where(stays, np.arange(len(KEYS)), jump))
        best = np.maximum(best, best[jump] - KEY_CHANGE) + scores
    path = [int(best.argmax())]
    for source in reversed(sources):
        path.append(int(source[path[-1]]))
    path.reverse()
    return tuple((i * window, KEYS[key]) for i, key in enumerate(path) if i == 0 or key != path[i - 1])


def guess_key(tokens: npt.NDArray[Any]) -> tuple[str | None, float]:
    """The key in which a roll (128, T) as a whole fits best, and how sure that is: its lead in correlation, 0 to 1."""
    classes = np.zeros(12)
    np.add.at(classes, np.arange(len(tokens)) % 12, (tokens != SILENCE).sum(1))
    if not classes.any() or np.ptp(classes) == 0:
        return None, 0.0
    classes -= classes.mean()
    profiles = PROFILES - PROFILES.mean(axis=1, keepdims=True)
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True)
    turned = classes[(np.arange(12)[:, None] + np.arange(12)) % 12] / np.linalg.norm(classes)
    fit = (profiles[:, None] * turned).sum(-1).ravel()
    second, best = np.argsort(fit)[-2:]
    return KEYS[best], float(fit[best] - fit[second])


def transposed(key: str, semitones: int) -> str:
    """The key of music in ``key`` after transposition."""
    mode, tonic = divmod(KEYS.index(key), 12)
    return KEYS[12 * mode + (tonic + semitones) % 12]


def key_between(keys: Keys, start: int, stop: int) -> str | None:
    """The key that holds most of the steps ``start`` to ``stop``, the earlier of equals; None where there is none."""
    held: dict[str, int] = {}
    for steps, key in _held(keys, start, stop):
        held[key] = held.get(key, 0) + steps
    return max(held, key=lambda key: held[key]) if held else None


def pace(tempos: Tempos, start: int, stop: int) -> float | None:
    """Quarters a minute, on average over the time of the steps ``start`` to ``stop``."""
    spans = _held(tempos, start, stop)
    return sum(steps for steps, _ in spans) / sum(steps / tempo for steps, tempo in spans) if spans else None


def _held(events: Sequence[tuple[int, Value]], start: int, stop: int) -> list[tuple[int, Value]]:
    """How many of the steps ``start`` to ``stop`` each of the (step, value) changes holds; the last one for ever."""
    ends = [*(step for step, _ in events[1:]), stop]
    spans = [(min(end, stop) - max(step, start), value) for (step, value), end in zip(events, ends, strict=False)]
    return [span for span in spans if span[0] > 0]


def vocabulary(songs: Iterable[Song], steps_per_quarter: int = 4, velocity_bins: int = 32) -> tuple[Attribute, ...]:
    """The attributes by which training songs differ: the 24 keys, the styles found, and bins of the numbers.

    Bins hold equally many of the songs' excerpts of 64 quarters; a number that hardly varies is left out, and so is a
    single style.
    """
    crop = CROP * steps_per_quarter
    found: dict[str, list[float]] = {name: [] for name in UNITS}
    styles: set[str] = set()
    sounds = False
    for song in songs:
        styles.add(song.style)
        tokens = song.tokens()
        for start in range(0, max(1, song.num_steps - crop // 2), crop):
            facts = numbers(tokens[:, start : start + crop], steps_per_quarter, velocity_bins)
            facts["tempo"] = pace(song.tempos, start, start + crop)
            sounds |= facts["polyphony"] is not None
            for name, values in found.items():
                if isinstance(value := facts[name], float):
                    values.append(value)
    made = {name: _bins(name, np.array(values)) for name, values in found.items()}
    made["key"] = Attribute("key", KEYS) if sounds else None
    named = tuple(sorted(styles - {""}))
    made["style"] = Attribute("style", named) if len(named) > 1 else None
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


def drawn_by_lot(attributes: Sequence[Attribute], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Labels (count, number of attributes) of so many pieces: a key each, all as probable, and nothing else set."""
    labels = np.zeros((count, len(attributes)), np.int64)
    for column, attribute in enumerate(attributes):
        if attribute.name == "key":
            labels[:, column] = np.random.default_rng(seed).integers(1, attribute.size, count)
    return labels
