"""Which cells of a roll are given and which are to be composed: rectangles, voices, modes.

Cells are (128 pitches, T time steps).  Ranges are half-open and counted from 0, as Python's slices are: ``0:4`` are the
first four, ``64:`` goes on to the end; ``pitch=C4:C5`` is the octave from C4 (60, the middle C) up to B4.

Two things hold for every :class:`Task`.  A known hold never follows a cell that is to be composed: from the first
composed cell of a note, all the rest of the note is composed anew (else it would be an orphan if something else is
composed before it).  And whatever the piece does not reach to, the steps that fill up the last patch, is known silence,
except where the piece goes on freely.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.music import MAX_STEPS
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import HOLD, NO_HOLD, ONSET, PITCHES, SILENCE, UNKNOWN

Plane = npt.NDArray[np.bool_]
Voice = Literal["highest", "lowest", "all"]
Side = Literal["below", "above"]

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "melodic minor": (0, 2, 3, 5, 7, 9, 11),
    "ionian": (0, 2, 4, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "aeolian": (0, 2, 3, 5, 7, 8, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "whole tone": (0, 2, 4, 6, 8, 10),
    "chromatic": tuple(range(12)),
}


@dataclass(frozen=True, eq=False)
class Task:
    """What a sampler is asked for.

    ``known``: int16 (128, W), tokens, and below 0 where a cell is to be composed: -1, or -2 where a given note ends and
    may not be held on; W is a multiple of the patch.
    ``width``: the steps of the piece that comes out, at most W.
    ``extended``: how many cells are composed although nobody asked for them: the rest of notes that the region cuts.
    """

    known: npt.NDArray[np.int16]
    width: int
    extended: int = 0

    @property
    def composed(self) -> Plane:
        """Cells of the piece (128, width) that are composed."""
        return self.known[:, : self.width] < 0


# --- What users write -------------------------------------------------------------------------------------------------


def parse_pitch(text: str) -> int:
    """MIDI pitch of ``60`` or a note name such as ``C4`` (60), ``F#3`` or ``Bb-1``; 128, the end of ranges, is allowed.

    Raises ``UserError``, without the flag's name, when it is neither or does not lie in 0 to 128.
    """
    compact = "".join(text.split())
    name = re.fullmatch(r"([A-Ga-g])(#*|b*)(-?[0-9]+)", compact)
    if name:
        pitch = 12 * (int(name[3]) + 1) + _pitch_of(name[1], name[2])
    elif re.fullmatch(r"-?[0-9]+", compact):
        pitch = int(compact)
    else:
        raise UserError(f"{text.strip()!r} is neither a pitch from 0 to 128 nor a note name such as C4, F#3 or Bb2")
    if not 0 <= pitch <= PITCHES:
        raise UserError(f"{text.strip()} is pitch {pitch}, which does not lie in 0 to 128")
    return pitch


def parse_pitch_range(text: str, flag: str = "--pitch_range") -> tuple[int, int]:
    """Half-open range of pitches from ``A:B``, ``A:``, ``:B``; A and B as :func:`parse_pitch` takes them."""
    return _pitch_range(text, f"{flag} {text.strip()}")


def parse_pitch_classes(text: str, flag: str = "--scale") -> frozenset[int]:
    """Pitch classes (C is 0) of a scale, ``A minor``, ``F# dorian``, or of a list of note names, ``C D E G A``.

    Raises:
        UserError: neither; the scales that exist are listed.
    """
    words = re.sub(r"[,_\-\s]+", " ", text).strip().lower().split(" ")
    roots = [re.fullmatch(r"([a-g])(#*|b*)", word) for word in words]
    classes = [_pitch_of(root[1], root[2]) % 12 for root in roots if root]
    if len(classes) == len(words):
        return frozenset(classes)
    intervals = SCALES.get(" ".join(words[1:]))
    if not roots[0] or intervals is None:
        raise UserError(
            f"{flag} {text.strip()!r}: neither note names (C D Eb F#) nor a root and one of {', '.join(SCALES)}"
        )
    return frozenset((classes[0] + interval) % 12 for interval in intervals)


def parse_rectangle(text: str, roll: PianoRoll, flag: str = "--mask") -> Plane:
    """Cells (128, T) of a rectangle such as ``time=64:192,pitch=C4:C6`` or ``bars=4:8``.

    Axes: ``time`` in steps or ``bars`` of the roll's own meters, and ``pitch``; an axis left out means all of it.

    Raises:
        UserError: an axis that is unknown or given twice, no number, an empty range, or one outside the piece.
    """
    where = f"{flag} {text.strip()}"
    ranges: dict[str, str] = {}
    for part in text.split(","):
        axis, equals, span = (piece.strip() for piece in part.partition("="))
        if axis not in ("time", "bars", "pitch") or not equals:
            raise UserError(f"{where}: {part.strip()!r} is none of time=A:B, bars=A:B, pitch=A:B")
        if axis in ranges:
            raise UserError(f"{where}: {axis} is given twice, {ranges[axis]} and {span}")
        ranges[axis] = span
    if "time" in ranges and "bars" in ranges:
        raise UserError(f"{where}: time={ranges['time']} and bars={ranges['bars']} exclude each other")
    plane = np.zeros(roll.tokens.shape, np.bool_)
    low, high = _pitch_range(ranges["pitch"], where) if "pitch" in ranges else (0, PITCHES)
    start, stop = 0, roll.width
    if "time" in ranges:
        start, stop = _numbers(ranges["time"], where, "time", roll.width, "steps")
    elif "bars" in ranges:
        lines = np.r_[roll.downbeats(), roll.width]
        first, last = _numbers(ranges["bars"], where, "bars", len(lines) - 1, "bars")
        start, stop = int(lines[first]), int(lines[last])
    plane[low:high, start:stop] = True
    return plane


def score_bars(texts: Sequence[str], roll: PianoRoll, flag: str = "--compose_bars") -> Plane:
    """Cells (128, T) of bars as on a score, ``5-8`` or ``12``: counted from 1, the last one included.

    Raises:
        UserError: no bars, or bars that the piece does not have.
    """
    lines = np.r_[roll.downbeats(), roll.width]
    plane = np.zeros(roll.tokens.shape, np.bool_)
    for text in texts:
        found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text.strip())
        if not found:
            raise UserError(f"{flag} {text}: bars are written as 5-8 or 12")
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last < len(lines):
            raise UserError(f"{flag} {text}: the piece has the bars 1-{len(lines) - 1}")
        plane[:, lines[first - 1] : lines[last]] = True
    return plane


def time_span(roll: PianoRoll, start: int, stop: int) -> Plane:
    """Cells (128, T) of the steps ``start`` to ``stop`` (``--mask_start``, ``--mask_end``), as a rectangle."""
    flags = f"--mask_start {start} --mask_end {stop}"
    _check_range(start, stop, flags, f"{start}:{stop}", roll.width, "steps")
    plane = np.zeros(roll.tokens.shape, np.bool_)
    plane[:, start:stop] = True
    return plane


def bars_to_steps(roll: PianoRoll, bars: int, flag: str = "--condition_bars") -> int:
    """Steps that the first ``bars`` bars of the roll last; raises ``UserError`` when it has fewer."""
    lines = np.r_[roll.downbeats(), roll.width]
    if not 1 <= bars < len(lines):
        raise UserError(f"{flag} {bars}: the piece has {len(lines) - 1} bars")
    return int(lines[bars])


# --- Modes ------------------------------------------------------------------------------------------------------------


def continuation(roll: PianoRoll, steps: int, length: int, patch: int = 16, asked: str = "") -> Task:
    """Keep the first ``steps`` time steps and compose ``length`` more; what the roll holds after them is forgotten.

    ``asked``: the flag and value that gave ``steps``, for messages.
    """
    asked = asked or f"--condition_length {steps}"
    if not 1 <= steps <= roll.width:
        raise UserError(f"{asked}: the piece has {roll.width} steps")
    if length < 1:
        raise UserError(f"{asked}: nothing to compose after it, {length} steps")
    if steps + length > MAX_STEPS:
        raise UserError(f"{asked}: with {length} steps more that is more than {MAX_STEPS} in all")
    if not roll.tokens[:, :steps].any():
        raise UserError(f"{asked}: no note in the first {steps} steps to go on from")
    known = np.full((PITCHES, _whole_patches(steps + length, patch)), UNKNOWN, np.int16)
    known[:, :steps] = roll.tokens[:, :steps]
    return Task(_ended(known, roll.tokens), steps + length)


def inpainting(roll: PianoRoll, rectangles: Sequence[Plane], patch: int = 16) -> Task:
    """Compose the union of the rectangles (each (128, T)) anew, keep the rest.

    A note that begins before the region and goes on into it is kept up to its border; a note that begins or goes on
    in the region and lasts beyond it is composed to its end.
    """
    region = np.zeros(roll.tokens.shape, np.bool_)
    for rectangle in rectangles:
        region |= rectangle
    if not region.any():
        raise UserError("--mask: an empty region, nothing to compose")
    return _compose(roll.tokens, region, patch)


def accompaniment(
    roll: PianoRoll, voice: Voice | PianoRoll, side: Side, patch: int = 16, within: Plane | None = None
) -> Task:
    """Keep one voice of the roll and compose all that lies strictly ``below`` or ``above`` it.

    Outside of ``within`` (128, T), if given, everything stays as it is, but for the rest of notes that go away in it.

    ``voice``: ``all`` keeps every note (a file that is the voice alone).  ``highest`` is the skyline: going through the
    notes in time, of those struck together the highest is kept, unless a kept note that is higher still sounds;
    ``lowest`` is its mirror image.  A roll is the voice itself, a part of ``roll``.  All other notes are forgotten.
    While the voice sounds, its pitch (the outermost one towards ``side`` if there are several) is the border; while it
    rests, the pitch that it had last; before its first note, the first one.
    """
    if not (isinstance(voice, PianoRoll) or voice in get_args(Voice)) or side not in get_args(Side):
        raise UserError(f"--voice {voice} --side {side}: known are {get_args(Voice)} and {get_args(Side)}")
    if not roll.tokens.any():
        raise UserError("--mode accompany: the input has no notes to accompany")
    if isinstance(voice, PianoRoll):
        kept = voice.tokens
    else:
        kept = roll.tokens if voice == "all" else _outer_voice(roll.tokens, voice)
    pitches = np.arange(PITCHES)[:, None]
    outermost = np.where(kept != SILENCE, pitches, PITCHES).min(0) if side == "below" else _top(kept)
    sounding = np.flatnonzero((kept != SILENCE).any(0))
    latest = np.maximum(np.searchsorted(sounding, np.arange(roll.width), side="right") - 1, 0)
    border = outermost[sounding[latest]]
    region = pitches < border if side == "below" else pitches > border
    if within is not None:
        region = region & within
        forgotten = within & (kept == SILENCE)
        kept = np.where(forgotten | _rest(roll.tokens, forgotten & ~region), SILENCE, roll.tokens)
    if not region.any():
        raise UserError(f"--side {side}: no pitch lies {side} the given voice, nothing to compose")
    return _compose(kept, region, patch)


def variation(
    roll: PianoRoll, strength: float, generator: np.random.Generator, patch: int = 16, within: Plane | None = None
) -> Task:
    """Compose a random ``strength`` (a share, over 0 to 1) of the patches anew, at least one, and keep the rest.

    Patches are drawn from the rows of patches between the lowest and the highest note; notes that begin before a drawn
    patch or in it are treated as in :func:`inpainting`.  Outside of ``within`` (128, T), if given, nothing is composed.
    """
    if not 0 < strength <= 1:
        raise UserError(f"--strength {strength}: a share over 0, at most 1")
    rows = np.flatnonzero(roll.tokens.any(1)) // patch
    if not len(rows):
        raise UserError("--mode variation: the input has no notes to vary")
    columns = _whole_patches(roll.width, patch) // patch
    candidates = np.arange(rows[0] * columns, (rows[-1] + 1) * columns)
    if within is not None:
        open_columns = np.add.reduceat(within.any(0), np.arange(0, roll.width, patch)) > 0
        candidates = candidates[open_columns[candidates % columns]]
    drawn = generator.choice(candidates, max(1, round(strength * len(candidates))), replace=False)
    patches = np.zeros(PITCHES // patch * columns, np.bool_)
    patches[drawn] = True
    region = np.kron(patches.reshape(-1, columns), np.ones((patch, patch), np.bool_))
    region = region[:, : roll.width]
    return _compose(roll.tokens, region if within is None else region & within, patch)


def _compose(tokens: npt.NDArray[np.uint8], region: Plane, patch: int) -> Task:
    """The task to compose ``region`` and the rest of every note that is composed in part; known silence fills up."""
    width = tokens.shape[1]
    composed = region | _rest(tokens, region)
    known = np.zeros((PITCHES, _whole_patches(width, patch)), np.int16)
    known[:, :width] = np.where(composed, UNKNOWN, tokens.astype(np.int16))
    return Task(_ended(known, tokens), width, int((composed & ~region).sum()))


def _rest(tokens: npt.NDArray[np.uint8], cells: Plane) -> Plane:
    """The rest of notes: holds (128, T) that are or follow one of the cells in their note."""
    steps = np.arange(tokens.shape[1])
    begun = np.maximum.accumulate(np.where(tokens != HOLD, steps, 0), axis=1)  # where the note of each hold begins
    latest = np.maximum.accumulate(np.where(cells, steps, UNKNOWN), axis=1)
    return (tokens == HOLD) & (latest >= begun)


def _ended(known: npt.NDArray[np.int16], tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """``known``, in which no hold may follow a given note that ends there in ``tokens``; what is cut may go on."""
    goes_on = np.zeros(known.shape, np.bool_)
    width = min(known.shape[1], tokens.shape[1])
    goes_on[:, :width] = tokens[:, :width] == HOLD
    ended = (known[:, 1:] == UNKNOWN) & (known[:, :-1] > SILENCE) & ~goes_on[:, 1:]
    known[:, 1:][ended] = NO_HOLD
    return known


def _outer_voice(tokens: npt.NDArray[np.uint8], voice: Voice) -> npt.NDArray[np.uint8]:
    """Tokens of the highest (lowest) voice alone."""
    if voice == "lowest":
        return _outer_voice(tokens[::-1], "highest")[::-1]
    kept = np.zeros_like(tokens)
    struck = tokens >= ONSET
    struck[:, 0] |= tokens[:, 0] == HOLD  # began before the excerpt
    for step in np.flatnonzero(struck.any(0)):
        pitch = np.flatnonzero(struck[:, step])[-1]
        if not kept[pitch:, step].any():
            stop = step + 1
            while stop < tokens.shape[1] and tokens[pitch, stop] == HOLD:
                stop += 1
            kept[pitch, step:stop] = tokens[pitch, step:stop]
    return kept


def _top(tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The highest pitch that sounds at each step."""
    return PITCHES - 1 - (tokens[::-1] != SILENCE).argmax(0)


def _whole_patches(width: int, patch: int) -> int:
    return -(-width // patch) * patch


def _pitch_of(letter: str, accidentals: str) -> int:
    return _LETTERS[letter.upper()] + accidentals.count("#") - accidentals.count("b")


def _ends(text: str, where: str) -> tuple[str, str]:
    start, colon, stop = (piece.strip() for piece in text.partition(":"))
    if not colon:
        raise UserError(f"{where}: {text.strip()!r} is no range A:B")
    return start, stop


def _pitch_range(text: str, where: str) -> tuple[int, int]:
    start, stop = _ends(text, where)
    try:
        low, high = parse_pitch(start or "0"), parse_pitch(stop or str(PITCHES))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    _check_range(low, high, where, text.strip(), PITCHES, "pitches")
    return low, high


def _numbers(text: str, where: str, axis: str, size: int, unit: str) -> tuple[int, int]:
    start, stop = _ends(text, where)
    if not all(re.fullmatch(r"-?[0-9]+", number) for number in (start or "0", stop or "0")):
        raise UserError(f"{where}: {axis}={text.strip()} is no range of whole numbers")
    first, last = int(start or 0), int(stop or size)
    _check_range(first, last, where, text.strip(), size, unit)
    return first, last


def _check_range(start: int, stop: int, where: str, text: str, size: int, unit: str) -> None:
    if start < 0 or max(start, stop) > size or start == size:
        raise UserError(f"{where}: {text} does not lie in the {size} {unit} (0:{size}) that there are")
    if start >= stop:
        raise UserError(f"{where}: {text} is an empty range")
