"""Chords of music that nobody has annotated: template matching and a Viterbi search over beats."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.music.chords import NO_CHORD, QUALITIES, UNTOLD, Chord
from fractalgen.music.tokens import ONSET, SILENCE
from fractalgen.music.viterbi import best_path

# Found by agreement with the chords that POP909 annotates in its training songs; see `python -m benchmarks.planning`.
CHORD_CHANGE = 0.22  # what a change of chord costs on a downbeat, where a beat fits its chord by up to 1
WEAK_BEAT = 0.34  # what it costs besides on any other beat, and twice as much on every second beat
MISSING = 0.275  # what each note of a chord costs that does not sound
FOREIGN = 0.53  # what a note costs that is none of the chord's, per share of the beat
ROOT_IN_BASS, NOTE_IN_BASS = 0.27, 0.077
RARITY = {"": -0.06, "m": 0.0, "7": 0.1, "m7": 0.06, "maj7": -0.01, "sus2": 0.15, "sus4": 0.12, "6": 0.17, "m6": 0.25}
RARE = 0.14  # what every other quality costs
MELODY = 0.13  # weight of the highest notes beside the others


def beat_profile(
    tokens: npt.NDArray[Any], beats: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """What sounds in each beat: shares (beats, 12) by pitch class, and the pitch class of the bass, -1 for silence.

    ``beats``: the first step of each beat, and the end of the last.
    """
    sounding = tokens != SILENCE
    struck = tokens >= ONSET
    pitches = np.arange(len(tokens))
    highest = np.where(sounding.any(0), len(tokens) - 1 - sounding[::-1].argmax(0), -1)
    weight = sounding * np.where(pitches[:, None] == highest, MELODY, 1.0) + 0.5 * struck
    shares = np.zeros((len(beats) - 1, 12))
    bass = np.full(len(beats) - 1, -1)
    for number, (start, stop) in enumerate(pairwise(beats.tolist())):
        part = weight[:, start:stop].sum(1)
        np.add.at(shares[number], pitches % 12, part)
        low = np.flatnonzero(sounding[:, start:stop].any(1))
        if len(low):
            bass[number] = low[0] % 12
    total = shares.sum(1, keepdims=True)
    return np.divide(shares, total, out=shares, where=total > 0), bass


def templates() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which pitch classes (12 roots x qualities, 12) each chord has, and what its rarity costs."""
    notes = np.zeros((12, len(QUALITIES), 12), bool)
    for quality, semitones in enumerate(QUALITIES.values()):
        for root in range(12):
            notes[root, quality, (root + np.array(semitones)) % 12] = True
    rarity = np.array([RARITY.get(name, RARE) for name in QUALITIES])
    return notes.reshape(-1, 12), np.tile(rarity, 12)


def estimate_chords(
    tokens: npt.NDArray[Any], beats: npt.NDArray[np.integer], downbeats: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Codes of the chords of a roll (128, T), one for each beat.

    ``beats``: the first step of each beat; the last one lasts until the end.  ``downbeats``: the first steps of bars.
    A silent beat keeps the chord before; where nothing sounds for a bar there is no chord.
    """
    count = len(beats)
    if not count:
        return np.zeros(0, np.int64)
    shares, bass = beat_profile(tokens, np.r_[beats, tokens.shape[1]])
    notes, rarity = templates()
    present = np.minimum(1.0, shares * 6)  # a sixth of a beat is enough to be there
    fit = shares @ notes.T - FOREIGN * (shares @ ~notes.T) - MISSING * ((1 - present) @ notes.T) - rarity
    roots = np.repeat(np.arange(12), len(QUALITIES))
    fit += ROOT_IN_BASS * (bass[:, None] == roots) + NOTE_IN_BASS * notes[:, bass].T
    silent = bass < 0
    fit[silent] = 0.0
    place = np.searchsorted(downbeats, beats, side="right") - 1
    within = np.arange(count) - np.searchsorted(beats, downbeats[np.maximum(place, 0)])
    change = CHORD_CHANGE + np.where(within == 0, 0.0, np.where(within % 2 == 0, WEAK_BEAT, 2 * WEAK_BEAT))

    path = best_path(fit, change)

    codes = np.zeros(count, np.int64)
    borders = np.flatnonzero(np.r_[True, path[1:] != path[:-1], True])
    for start, stop in pairwise(borders.tolist()):
        root, quality = divmod(int(path[start]), len(QUALITIES))
        heard = bass[start:stop][bass[start:stop] >= 0]
        interval = 0
        if len(heard):  # the bass that most beats have, if it is a note of the chord
            interval = (int(np.bincount(heard, minlength=12).argmax()) - root) % 12
        interval = interval if interval in QUALITIES[list(QUALITIES)[quality]] else 0
        codes[start:stop] = Chord(root, quality, interval).code
    runs = np.flatnonzero(np.diff(np.r_[0, silent, 0]))
    bar = max(1, int(np.median(np.diff(np.searchsorted(beats, downbeats)))) if len(downbeats) > 1 else 4)
    for start, stop in runs.reshape(-1, 2):
        if stop - start >= bar or stop == count or start == 0:
            codes[start:stop] = NO_CHORD
    return codes


def annotated_chords(spans: list[tuple[float, float, int]], seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Codes of beats from annotated spans (start, end, code); ``seconds``: begin of each beat, and the last one's end.

    A beat has the chord that holds most of it; a beat that no span reaches is not told.
    """
    codes = np.full(len(seconds) - 1, UNTOLD, np.int64)
    if not spans:
        return codes
    starts, stops = (np.array([span[which] for span in spans]) for which in (0, 1))
    shared = np.minimum(stops, seconds[1:, None]) - np.maximum(starts, seconds[:-1, None])
    most = shared.argmax(1)
    told = shared[np.arange(len(codes)), most] > 0
    codes[told] = np.array([span[2] for span in spans])[most[told]]
    return codes
