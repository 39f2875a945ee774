"""Which cells of a roll are given and which are to be composed: continue, fill, accompany, vary.

Cells are (128 pitches, T time steps).  Two things hold for every :class:`Task`.  A known hold never follows a cell that
is to be composed: from the first composed cell of a note on, the whole rest of the note is composed anew (otherwise it
could become an orphan).  The steps that fill up the last patch behind the end of the piece are known silence, except
where the piece continues freely.
"""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Task:
    """Known and unknown cells for a sampler.

    ``known``: int16 (128, W), tokens, and below 0 where a cell is to be composed: -1, or -2 where a given note ends and
    may not be held on; W is a multiple of the patch.
    ``width``: the steps of the piece that comes out, at most W.
    """

    known: npt.NDArray[np.int16]
    width: int

    @property
    def composed(self) -> Plane:
        """Cells of the piece (128, width) that are composed."""
        return self.known[:, : self.width] < 0


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
    known = np.full((PITCHES, whole_patches(steps + length, patch)), UNKNOWN, np.int16)
    known[:, :steps] = roll.tokens[:, :steps]
    return Task(_ended(known, roll.tokens), steps + length)


def inpainting(roll: PianoRoll, rectangles: Sequence[Plane], patch: int = 16) -> Task:
    """Compose the union of the rectangles (each (128, T)) anew, keep the rest.

    A note that begins before the region and reaches into it is kept up to its border; a note that begins or continues
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
    rests, the pitch that it had last; before its first note, the first one.  A voice without notes has no border.
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
    lowest, highest = np.where(kept != SILENCE, pitches, PITCHES).min(0), np.where(kept != SILENCE, pitches, -1).max(0)
    outermost = lowest if side == "below" else highest
    sounding = np.flatnonzero((kept != SILENCE).any(0))
    region = np.ones(kept.shape, np.bool_)
    if len(sounding):
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
    roll: PianoRoll,
    strength: float,
    generator: np.random.Generator,
    patch: tuple[int, int] = (16, 16),
    within: Plane | None = None,
) -> Task:
    """Compose a random ``strength`` (a share, over 0 to 1) of the patches anew, at least one, and keep the rest.

    ``patch``: pitches and time steps of a patch.  Patches are drawn from the rows of patches between the lowest and the
    highest note; notes that begin before a drawn patch or in it are treated as in :func:`inpainting`.  Outside of
    ``within`` (128, T), if given, nothing is composed.
    """
    if not 0 < strength <= 1:
        raise UserError(f"--strength {strength}: a share over 0, at most 1")
    pitches, steps = patch
    rows = np.flatnonzero(roll.tokens.any(1)) // pitches
    if not len(rows):
        raise UserError("--mode variation: the input has no notes to vary")
    columns = whole_patches(roll.width, steps) // steps
    candidates = np.arange(rows[0] * columns, (rows[-1] + 1) * columns)
    if within is not None:
        padded = np.pad(within, ((0, 0), (0, columns * steps - roll.width)))
        candidates = candidates[padded.reshape(-1, pitches, columns, steps).any((1, 3)).ravel()[candidates]]
        if not len(candidates):
            raise UserError("--mode variation: nothing to vary there, it lies above or below all notes")
    drawn = generator.choice(candidates, max(1, round(strength * len(candidates))), replace=False)
    patches = np.zeros(PITCHES // pitches * columns, np.bool_)
    patches[drawn] = True
    region = np.kron(patches.reshape(-1, columns), np.ones(patch, np.bool_))
    region = region[:, : roll.width]
    return _compose(roll.tokens, region if within is None else region & within, steps)


def _compose(tokens: npt.NDArray[np.uint8], region: Plane, patch: int) -> Task:
    """The task to compose ``region`` and the rest of every note that is composed in part; known silence fills up."""
    width = tokens.shape[1]
    composed = region | _rest(tokens, region)
    known = np.zeros((PITCHES, whole_patches(width, patch)), np.int16)
    known[:, :width] = np.where(composed, UNKNOWN, tokens.astype(np.int16))
    return Task(_ended(known, tokens), width)


def _rest(tokens: npt.NDArray[np.uint8], cells: Plane) -> Plane:
    """The rest of notes: holds (128, T) that are or follow one of the cells in their note."""
    steps = np.arange(tokens.shape[1])
    begun = np.maximum.accumulate(np.where(tokens != HOLD, steps, 0), axis=1)  # where the note of each hold begins
    latest = np.maximum.accumulate(np.where(cells, steps, UNKNOWN), axis=1)
    return (tokens == HOLD) & (latest >= begun)


def _ended(known: npt.NDArray[np.int16], tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """``known`` without holds after given notes that end in ``tokens``; a note that is cut may continue."""
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


def whole_patches(width: int, patch: int) -> int:
    """``width``, completed to a multiple of ``patch``."""
    return -(-width // patch) * patch
