"""Musical keys: the key of a passage, estimated, and changes of key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fractalgen.music.labels import KEYS
from fractalgen.music.measures import by_pitch_class
from fractalgen.music.tokens import SILENCE, ends_of, without_repeats
from fractalgen.music.viterbi import best_path

Keys = tuple[tuple[int, str], ...]
Value = TypeVar("Value")
# How usual each degree of the scale is, counted from the tonic, in major and in minor: J. Albrecht and D. Shanahan,
# "The Use of Large Corpora to Train a New Type of Key-Finding Algorithm", Music Perception 31 (2013).
PROFILES = np.array(
    [
        [0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081],
        [0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052],
    ]
)
_CENTRED = PROFILES - PROFILES.mean(axis=1, keepdims=True)
_CENTRED /= np.linalg.norm(_CENTRED, axis=1, keepdims=True)
_TURNS = (np.arange(12)[:, None] + np.arange(12)) % 12
KEY_WINDOW = 16  # quarters that are heard in one key
# What a change of key costs, where a window fits its key by some 0.25.  Found, like the profiles (out of five published
# sets), by agreement with the keys that POP909 annotates, which another program found in audio: 89 % of all bars, 83 %
# of those in songs that change their key.  Of the songs in dispute twice as many end on the estimated tonic.
KEY_CHANGE = 0.5


def key_changes(tokens: npt.NDArray[Any], steps_per_quarter: int = 4) -> Keys:
    """Estimated keys of a roll (128, T): (step, key) from which each holds; none for a silent roll.

    The pitch classes that sound in each window are correlated with the profiles of the 24 keys (the algorithm of
    Krumhansl and Schmuckler, in: C. Krumhansl, Cognitive Foundations of Musical Pitch, 1990); a Viterbi search finds
    the keys of all windows that fit best together, given what a change costs.
    """
    window = KEY_WINDOW * steps_per_quarter
    padded = np.pad(tokens != SILENCE, ((0, 0), (0, -tokens.shape[1] % window)))
    sounding = padded.reshape(len(tokens), -1, window).sum(-1)
    classes = by_pitch_class(sounding[None])[0].astype(float)
    if not classes.any():
        return ()
    classes *= classes.shape[1] / classes.sum()
    # the histogram is turned, not the profile: so transposed music gives the very same sums, of another key
    fit = (classes.T[:, _TURNS][:, None] * _CENTRED[:, None]).sum(-1).reshape(-1, len(KEYS))

    path = best_path(fit, KEY_CHANGE).tolist()
    return without_repeats((number * window, KEYS[key]) for number, key in enumerate(path))


def guess_key(tokens: npt.NDArray[Any]) -> tuple[str | None, float]:
    """The key in which a roll (128, T) as a whole fits best, and how sure that is: its lead in correlation, 0 to 1."""
    classes = by_pitch_class((tokens != SILENCE).sum(1)[None])[0].astype(float)
    if not classes.any() or np.ptp(classes) == 0:
        return None, 0.0
    classes -= classes.mean()
    fit = (_CENTRED[:, None] * (classes[_TURNS] / np.linalg.norm(classes))).sum(-1).ravel()
    second, best = np.argsort(fit)[-2:]
    return KEYS[best], float(fit[best] - fit[second])


def transposed(key: str, semitones: int) -> str:
    """The key of music in ``key`` after transposition."""
    mode, tonic = divmod(KEYS.index(key), 12)
    return KEYS[12 * mode + (tonic + semitones) % 12]


def key_between(keys: Keys, start: int, stop: int) -> str | None:
    """The key that holds most of the steps ``start`` to ``stop``, the earlier of equals; None where there is none."""
    steps_of: dict[str, int] = {}
    for steps, key in held(keys, start, stop):
        steps_of[key] = steps_of.get(key, 0) + steps
    return max(steps_of, key=lambda key: steps_of[key]) if steps_of else None


def held(events: Sequence[tuple[int, Value]], start: int, stop: int) -> list[tuple[int, Value]]:
    """How many of the steps ``start`` to ``stop`` each of the (step, value) changes holds; the last one for ever."""
    ends = ends_of(events, stop)
    spans = [(min(end, stop) - max(step, start), value) for (step, value), end in zip(events, ends, strict=False)]
    return [span for span in spans if span[0] > 0]
