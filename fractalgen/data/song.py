"""A song as it is stored in a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.music.chords import Chords
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import Meters, Notes, Tempos, grid_steps, tokens_from_notes


@dataclass(frozen=True)
class Song:
    """One song on its way into a corpus; ``notes`` begin at step 0 and do not overlap on one pitch.

    ``style`` is a label of the collection's own, empty where there is none.  ``chords`` are changes (step, code, see
    :mod:`fractalgen.music.chords`), if somebody annotated them.  ``voices`` has a code of
    :mod:`fractalgen.music.voices` for each note; None: not known.  ``flat``: the velocities mean nothing, because the
    score that the file was made from has no dynamics, say.
    """

    name: str
    notes: Notes
    num_steps: int
    tempos: Tempos
    meters: Meters
    style: str = ""
    chords: Chords = ()
    voices: npt.NDArray[np.uint8] | None = None
    flat: bool = False

    def tokens(self) -> npt.NDArray[np.uint8]:
        """Tokens (128, num_steps)."""
        return tokens_from_notes(self.notes, 0, self.num_steps)

    @classmethod
    def from_roll(
        cls, name: str, roll: PianoRoll, chords: Chords = (), voices: npt.NDArray[np.uint8] | None = None
    ) -> Song:
        """Whole bars only: empty bars at the beginning are dropped, the last bar is filled up with silence.

        ``voices``: one for each note of ``roll.notes()``.
        """
        notes = roll.notes()
        last = int((notes["start"] + notes["duration"]).max())
        bars = grid_steps(roll.time_signatures, last + 1, roll.steps_per_quarter)
        origin = int(bars[np.searchsorted(bars, notes["start"].min(), side="right") - 1])
        notes["start"] -= origin
        step, numerator, denominator = roll.time_signatures[-1]
        # one more bar than needed, so that the bar line that ends the last bar is on the list
        beyond = max(last, step) + -(-numerator * 4 * roll.steps_per_quarter // denominator) + 1
        bars = grid_steps(roll.time_signatures, beyond, roll.steps_per_quarter)
        num_steps = int(bars[np.searchsorted(bars, last)]) - origin
        tempos, meters = _shift(roll.tempos, origin), _shift(roll.time_signatures, origin)
        return cls(name, notes, num_steps, tempos, meters, chords=_shift(chords, origin), voices=voices)


def _shift(events: tuple[Any, ...], origin: int) -> tuple[Any, ...]:
    """Events (step, value...) seen from ``origin``: the one in force there moves to step 0."""
    force = max((i for i, event in enumerate(events) if event[0] <= origin), default=0)
    return tuple((max(0, event[0] - origin), *event[1:]) for event in events[force:])
