"""The plan of a piece from what a user gives: music, chords, a form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.music.bars import BarLayout, units_of
from fractalgen.music.chords import QUALITIES, UNTOLD, Chord, Chords
from fractalgen.music.form import NEW, NOT_SAID, parse_form, returns_of
from fractalgen.music.labels import KEYS
from fractalgen.music.plan import MOST_LEFT, Plan, bars_to_end, plan_of, unit_chords
from fractalgen.music.progression import parse_progression, progression_chords
from fractalgen.music.tokens import Meters, grid_steps, steps_of_bars, whole_bars


def heard(layout: BarLayout, known: npt.NDArray[np.integer], meters: Meters, steps_per_quarter: int) -> Plan:
    """The plan that given music sounds like; only of chords and bars that are given whole.

    ``known``: tokens (128, T) by real step, below 0 where something is to be composed.
    """
    whole = np.all(known >= 0, axis=0)
    laid = layout.lay(whole, True).reshape(len(layout), -1)
    columns = np.all(laid, axis=1)
    units = laid.reshape(len(layout) * units_of(layout.patch), -1).all(1) & (layout.unit_steps >= 0)
    plan = plan_of(layout, known.clip(0).astype(np.uint8), meters, steps_per_quarter)
    there = (plan.returns < 0) | columns[np.maximum(plan.returns, 0)]
    return replace(
        plan,
        chords=np.where(units, plan.chords, UNTOLD),
        returns=np.where(columns & there, plan.returns, NOT_SAID),
    )


def column_returns(layout: BarLayout, returns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What columns come back to, from what bars come back to."""
    found = np.full(len(layout), NEW)
    for column, bar in enumerate(layout.bars.tolist()):
        if returns[bar] < 0:
            continue
        mine, theirs = (np.flatnonzero(layout.bars == number) for number in (bar, returns[bar]))
        if len(mine) == len(theirs):
            found[column] = theirs[column - mine[0]]
    return found


def form_bars(form: str) -> int:
    """How many bars a form has.

    Raises:
        UserError: it cannot be read.
    """
    return sum(bars for _, bars in parse_form(form))


def natural_bars(form: str | None, chords: str | None, usual: int) -> int:
    """How many bars a piece has whose length is not given: those of its form; else ``usual``, or those of its chords.

    Of the last two it is the larger number.

    Raises:
        UserError: the form or the chords cannot be read.
    """
    if form is not None:
        return form_bars(form)
    return max(usual, len(parse_progression(chords)) if chords is not None else 0)


def steps_to_form(form: str, meters: Meters, cut: int, steps_per_quarter: int) -> int:
    """Steps that are to follow the first ``cut`` ones, so that a piece has as many bars as a form."""
    done = len(grid_steps(meters, cut, steps_per_quarter))
    rest = whole_bars(tuple(meter for meter in meters if meter[0] < cut), cut, steps_per_quarter) - cut
    _, beats, unit = [meter for meter in meters if meter[0] <= cut][-1]
    return rest + steps_of_bars(form_bars(form) - done, steps_per_quarter, beats, unit)


def ending_on_tonic(plan: Plan, layout: BarLayout, key: str) -> Plan:
    """A plan whose last bar has the tonic of a key as its chord, unless another one is told there."""
    tonic, minor = KEYS.index(key) % 12, KEYS.index(key) >= 12
    chord = Chord(tonic, list(QUALITIES).index("m" if minor else "")).code
    last = np.repeat(layout.bars == layout.bars[layout.lengths > 0].max(), units_of(layout.patch))
    here = last & (layout.unit_steps >= 0)
    if (plan.chords[here] != UNTOLD).any():
        return plan
    return replace(plan, chords=np.where(here, chord, plan.chords))


def piece_plan(
    layout: BarLayout,
    steps_per_quarter: int,
    *,
    known: npt.NDArray[Any] | None = None,
    meters: Meters = (),
    chords: str | None = None,
    changes: Chords = (),
    form: str | None = None,
    chords_flag: str = "--chords",
    ends: bool = True,
) -> Plan:
    """What is told of a piece: the chords and the form of the given music, and what is asked for.

    ``known``: see :func:`heard`, in ``meters``.  ``chords``: a progression (see :func:`.parse_progression`), which
    begins in the first bar in which something is composed; ``chords_flag``: where it is from, for messages.
    ``changes``: changes of chord by step, of a lead sheet.  ``form``: of the whole piece, see :func:`.parse_form`.
    ``ends``: whether it is told of its end; an accompaniment is not, since the given voice says where it ends.

    Raises:
        UserError: chords or a form that cannot be read, or that do not fit the piece.
    """
    plan = Plan.free(len(layout), layout.patch)
    open_units = layout.open_units(known)
    if known is not None:
        plan = heard(layout, known, meters, steps_per_quarter)
    left = bars_to_end(layout) if ends else np.where(layout.lengths > 0, MOST_LEFT, 0)
    plan = replace(plan, left=left)
    if chords is not None:
        wanted = progression_chords(parse_progression(chords, chords_flag), layout, open_units, chords_flag)
        plan = replace(plan, chords=np.where(open_units, wanted, plan.chords))
    if changes:
        wanted = unit_chords(layout, changes)
        begun = layout.unit_steps >= min(step for step, _ in changes)
        plan = replace(plan, chords=np.where(open_units & begun, wanted, plan.chords))
    if form is not None:
        sections = parse_form(form)
        asked, bars = sum(length for _, length in sections), int(layout.bars.max()) + 1
        if asked != bars:
            raise UserError(f"--form {form}: {asked} bars in all, the piece has {bars}")
        starts = np.cumsum([0, *(length for _, length in sections)])[:-1]
        columns = [int(np.flatnonzero(layout.bars == bar)[0]) for bar in starts]
        names = tuple((column, name) for column, (name, _) in zip(columns, sections, strict=True))
        plan = replace(plan, returns=column_returns(layout, returns_of(sections)), sections=names)
    return plan
