"""The plan of a piece: its chords, which earlier bar each bar comes back to, and how many bars are left.

All three are arrays over the columns of a :class:`~fractalgen.music.bars.BarLayout`, so a plan belongs to a layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.music.bars import BarLayout, units_of
from fractalgen.music.chord_estimate import estimate_chords
from fractalgen.music.chords import CODES, UNTOLD, Chords, spelled
from fractalgen.music.form import NEW, NOT_SAID, find_returns, sections_of
from fractalgen.music.tokens import Meters, ends_of, grid_steps, without_repeats

MOST_LEFT = 16  # bars left are counted up to this number
ENDING = 4  # bars in which a piece that is composed comes to its end


@dataclass(frozen=True, eq=False)
class Plan:
    """What is planned for columns.

    ``chords`` (columns * units): a code of :mod:`.chords` for each unit.  ``returns`` (columns): the earlier column, or
    :data:`~.form.NEW`, or :data:`~.form.NOT_SAID`.  ``left`` (columns): bars left, this one included, at most
    ``MOST_LEFT``; 0 where it is not told.  ``sections``: (column, name), where somebody named them.
    """

    chords: npt.NDArray[np.int64]
    returns: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    sections: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("chords", "returns", "left"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.int64))
        columns = len(self.returns)
        if len(self.left) != columns or (columns and len(self.chords) % columns):
            raise UserError(f"plan: {len(self.chords)} chords, {columns} returns and {len(self.left)} bars left")
        if len(self.chords) and not 0 <= self.chords.min() <= self.chords.max() < CODES:
            raise UserError(f"plan: chord codes from {self.chords.min()} to {self.chords.max()}, of {CODES}")
        if ((self.returns >= np.arange(columns)) | (self.returns < NOT_SAID)).any():
            raise UserError("plan: a bar comes back to a bar that does not lie before it")

    @classmethod
    def free(cls, columns: int, patch: int) -> Plan:
        """Nothing is told."""
        count = columns * units_of(patch)
        return cls(np.full(count, UNTOLD), np.full(columns, NOT_SAID), np.zeros(columns, np.int64))

    def __len__(self) -> int:
        return len(self.returns)

    def named_sections(self) -> tuple[tuple[int, str], ...]:
        """Sections (column, name): those that are named, or by what bars come back to."""
        if self.sections or not (self.returns >= 0).any():
            return self.sections
        return tuple(sections_of(self.returns))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a trace."""
        return {
            "chords": self.chords.tolist(),
            "returns": self.returns.tolist(),
            "left": self.left.tolist(),
            "sections": [list(section) for section in self.sections],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """Inverse of :meth:`to_dict`."""
        sections = tuple((int(column), str(name)) for column, name in data.get("sections", ()))
        return cls(np.array(data["chords"]), np.array(data["returns"]), np.array(data["left"]), sections)


def unit_chords(layout: BarLayout, chords: Chords) -> npt.NDArray[np.int64]:
    """The chord of each unit of a layout, of changes by real step; UNTOLD where a unit has no step."""
    steps = layout.unit_steps
    if not chords:
        return np.full(len(steps), UNTOLD)
    starts, codes = np.array(chords).T
    found = codes[np.maximum(np.searchsorted(starts, steps, side="right") - 1, 0)]
    return np.where(steps < 0, UNTOLD, found)


def chord_changes(layout: BarLayout, codes: npt.NDArray[np.integer]) -> Chords:
    """Changes of chord (real step, code); units that are not told have the chord before."""
    steps = layout.unit_steps
    there = (steps >= 0) & (codes != UNTOLD)
    return without_repeats(zip(steps[there].tolist(), codes[there].tolist(), strict=True))


def bars_left(layout: BarLayout) -> npt.NDArray[np.int64]:
    """How many bars are left in each column, itself included, at most MOST_LEFT; 0 behind the last one with a step."""
    there = layout.lengths > 0
    end = int(layout.bars[there].max()) + 1 if there.any() else 0
    return np.where(there, np.clip(end - layout.bars, 0, MOST_LEFT), 0)


def bars_to_end(layout: BarLayout) -> npt.NDArray[np.int64]:
    """What a piece that is to be composed is told of its end: :func:`bars_left` in its last ENDING bars.

    Before them it is told that many bars are left.  With the true number a short piece would sound from its first bar
    on like the last bars of a song, which have fewer notes.
    """
    left = bars_left(layout)
    return np.where(left > ENDING, MOST_LEFT, left)


def plan_of(
    layout: BarLayout, tokens: npt.NDArray[Any], meters: Meters, steps_per_quarter: int, chords: Chords = ()
) -> Plan:
    """What music (128, T) that begins at the layout's first step sounds like it was planned as.

    ``chords``: changes, if they are known; else they are estimated.
    """
    if not chords:
        beats = grid_steps(meters, tokens.shape[1], steps_per_quarter, "beat")
        codes = estimate_chords(tokens, beats, grid_steps(meters, tokens.shape[1], steps_per_quarter))
        chords = tuple(zip(beats.tolist(), codes.tolist(), strict=True))
    columns = layout.lay(tokens).reshape(len(tokens), len(layout), layout.patch).transpose(1, 0, 2)
    returns = np.where(layout.lengths > 0, find_returns(columns), NEW)
    return Plan(unit_chords(layout, chords), returns, bars_left(layout))


class Span(NamedTuple):
    """A section (``row`` 0) or a chord (1) of a plan: its first step, its end, and how it is called."""

    start: int
    stop: int
    text: str
    row: int


def spans_of(rows: Iterable[Sequence[tuple[int, str]]], end: int) -> list[Span]:
    """Rows of changes (step, text) as spans up to the next change of their row or the ``end``, in order."""
    found = []
    for row, changes in enumerate(rows):
        spans = zip(changes, ends_of(changes, end), strict=False)
        found += [Span(step, stop, text, row) for (step, text), stop in spans if stop > step]
    return sorted(found, key=lambda span: (span.start, span.row))


def lane_of(plan: Plan, layout: BarLayout, flats: bool = True) -> list[Span]:
    """Sections and chords by real step, in order; a section stands before its first chord."""
    rows: list[list[tuple[int, str]]] = [
        [(int(layout.starts[column]), name) for column, name in plan.named_sections()],
        [(step, spelled(code, flats)) for step, code in chord_changes(layout, plan.chords)],
    ]
    return spans_of(rows, layout.num_steps)


def markers(
    plan: Plan, layout: BarLayout, flats: bool = True, composed: npt.NDArray[np.bool_] | None = None
) -> list[tuple[int, str]]:
    """Marker texts (real step, text) of sections, in brackets, and of chords, in order.

    ``composed``: bool (T,), steps at which something is composed: only there are markers, and at the first of such
    steps in a row stands what holds there (default: everywhere).
    """
    edges = np.zeros(layout.num_steps, np.bool_) if composed is None else composed & ~np.r_[False, composed[:-1]]
    found = []
    for span in lane_of(plan, layout, flats):
        text = f"[{span.text}]" if span.row == 0 else span.text
        places = {span.start} if composed is None or composed[span.start] else set()
        places |= set((span.start + np.flatnonzero(edges[span.start : span.stop])).tolist())
        found += [(place, span.row, text) for place in places]
    return [(place, text) for place, _, text in sorted(found)]
