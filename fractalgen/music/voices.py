"""Voices: what a note is played for, the melody or a hand; by the names of tracks, or by a rule of reach."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.music.tokens import Notes

UNNAMED, MELODY, BRIDGE, RIGHT, LEFT, ACCOMPANIMENT = range(6)
"""Codes of voices: nothing known, the melody, a second melody, the two hands, an accompaniment of both hands."""

REACH = 14  # semitones that a hand spans; more of them than that sound in two hands
MIDDLE_C = 60
_NAMES = (
    (MELODY, r"\b(melody|vocals?|voice|lead|soprano|tune)\b"),
    (BRIDGE, r"\bbridge\b"),
    (RIGHT, r"\b(right( hand)?|rh|r\.h\.|treble|upper|discant|descant|rechte?)\b"),
    (LEFT, r"\b(left( hand)?|lh|l\.h\.|bass|lower|linke?)\b"),
    (ACCOMPANIMENT, r"\b(piano|accomp\w*|chords?)\b"),
)


def named_voice(name: str) -> int:
    """The voice that a track's name says it is; UNNAMED where it says nothing."""
    plain = name.casefold().replace("_", " ").replace("-", " ")
    return next((voice for voice, pattern in _NAMES if re.search(pattern, plain)), UNNAMED)


def voices_of_tracks(tracks: npt.NDArray[np.int64], name: Callable[[int], str]) -> npt.NDArray[np.uint8]:
    """The voice of each note, by the name of its track; two unnamed tracks are the two hands, the first the right."""
    numbers = np.unique(tracks)
    codes = {int(number): named_voice(name(int(number))) for number in numbers}
    if len(codes) == 2 and set(codes.values()) in ({UNNAMED}, {ACCOMPANIMENT}):
        codes = dict(zip(codes, (RIGHT, LEFT), strict=True))
    elif len(codes) == 1:
        codes = dict.fromkeys(codes, UNNAMED)
    return np.array([codes[int(track)] for track in tracks], np.uint8)


def merged_voices(
    notes: Notes, pitch: npt.NDArray[Any], start: npt.NDArray[np.int64], voices: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """The voice of each of ``notes`` that others were merged to; of several the one with the lowest code."""
    highest = int(start.max(initial=0)) + 1
    order = np.lexsort((-voices.astype(int), np.asarray(pitch, np.int64) * highest + start))
    keys = (np.asarray(pitch, np.int64) * highest + start)[order]
    found = np.searchsorted(keys, notes["pitch"].astype(np.int64) * highest + notes["start"], side="right") - 1
    return voices[order][found] if len(order) else np.zeros(0, np.uint8)


def hands(notes: Notes, voices: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
    """RIGHT or LEFT for each note (sorted by start); what ``voices`` says of hands and melodies is kept.

    The rule: notes that sound together and reach no farther than a hand belong to one hand, the one nearer to where
    it last played; wider chords are split at their widest gap.  The right hand takes what is nearer to it.
    """
    found = np.zeros(len(notes), np.uint8)
    if voices is not None:
        found = np.where(np.isin(voices, (MELODY, BRIDGE, RIGHT)), RIGHT, np.where(voices == LEFT, LEFT, UNNAMED))
        found = found.astype(np.uint8)
    places = {LEFT: 48.0, RIGHT: 70.0}  # where each hand is
    starts = notes["start"].astype(np.int64)
    ends = starts + notes["duration"]
    pitches = notes["pitch"].astype(np.int64)
    begin = 0
    sounding: list[int] = []
    while begin < len(notes):
        stop = int(np.searchsorted(starts, starts[begin], side="right"))
        group = list(range(begin, stop))
        sounding = [note for note in sounding if ends[note] > starts[begin]]
        free = [note for note in group if not found[note]]
        lows = [int(pitches[note]) for note in sounding if found[note] == LEFT]
        highs = [int(pitches[note]) for note in sounding if found[note] == RIGHT]
        ordered = sorted(free, key=lambda note: pitches[note])
        cut = _cut([int(pitches[note]) for note in ordered], places, lows, highs)
        for rank, note in enumerate(ordered):
            found[note] = LEFT if rank < cut else RIGHT
        for hand in (LEFT, RIGHT):
            mine = [int(pitches[note]) for note in group if found[note] == hand]
            if mine:
                places[hand] = 0.5 * places[hand] + 0.5 * (sum(mine) / len(mine))
        sounding += group
        begin = stop
    return found


def _cut(pitches: list[int], places: dict[int, float], lows: list[int], highs: list[int]) -> int:
    """How many of the lowest of these pitches, struck together, the left hand takes."""
    best, cost = 0, float("inf")
    for cut in range(len(pitches) + 1):
        left, right = pitches[:cut], pitches[cut:]
        price = sum(abs(pitch - places[LEFT]) for pitch in left) + sum(abs(pitch - places[RIGHT]) for pitch in right)
        for mine, held in ((left, lows), (right, highs)):
            together = mine + held if mine else []
            price += 8.0 * max(0, max(together) - min(together) - REACH) if together else 0.0
        price += 6.0 * sum(pitch < max(lows, default=0) for pitch in right)  # hands seldom cross
        price += 6.0 * sum(pitch > min(highs, default=127) for pitch in left)
        if price < cost:
            best, cost = cut, price
    return best


def melody_beside_chords(notes: Notes) -> npt.NDArray[np.bool_]:
    """Which notes are a melody above block chords; none where low block chords are all there is.

    Three notes or more that are struck and ended together are a block chord.  Of the other notes, the highest of each
    step are the melody.  Two kinds of notes are the melody's only if they lie nearer to it than to the chords: notes
    that are struck with a block and end where their pitch is struck again, and the highest note of a block above which
    no melody sounds.  In a file of blocks alone, middle C and what is higher is the melody's.
    """
    starts, pitches = notes["start"].astype(np.int64), notes["pitch"].astype(np.int64)
    ends = starts + notes["duration"]
    _, index, counts = np.unique(np.stack([starts, ends], 1), axis=0, return_inverse=True, return_counts=True)
    index = index.ravel()
    block = counts[index] >= 3
    keys = pitches * (int(ends.max(initial=0)) + 1)
    cut = ~block & np.isin(starts, starts[block]) & np.isin(keys + ends, keys + starts)
    groups = [np.flatnonzero(index == group) for group in np.unique(index[block])]
    groups = [group[np.argsort(pitches[group])] for group in groups]

    def highest(mine: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        top = {start: int(pitches[mine & (starts == start)].max()) for start in np.unique(starts[mine]).tolist()}
        return mine & (pitches == np.array([top.get(start, -1) for start in starts.tolist()], np.int64))

    melody = highest(~block & ~cut)
    border = MIDDLE_C - 0.5
    if melody.any() and groups:
        border = (pitches[melody].mean() + np.mean([pitches[group[-2]] for group in groups])) / 2
    melody = highest(melody | (cut & (pitches > border)))
    sung = melody.copy()
    for group in groups:
        begin, end, top = starts[group[0]], ends[group[0]], group[-1]
        if pitches[top] > border and not (sung & (starts < end) & (ends > begin)).any():
            melody[top] = True
    return melody


def voice_plane(
    notes: Notes, voices: npt.NDArray[np.uint8], start: int, stop: int, pitches: int = 128
) -> npt.NDArray[np.uint8]:
    """The voice of each cell (pitches, stop - start), as tokens are; 0 where nothing sounds."""
    plane = np.zeros((pitches, stop - start), np.uint8)
    begin = np.maximum(notes["start"].astype(np.int64) - start, 0)
    end = np.minimum(notes["start"].astype(np.int64) + notes["duration"] - start, stop - start)
    for pitch, first, last, voice in zip(notes["pitch"], begin, end, voices, strict=True):
        if last > first:
            plane[pitch, first:last] = voice
    return plane
