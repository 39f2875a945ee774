"""Form: what comes back is found, sections are named, plans become markers."""

from __future__ import annotations

import numpy as np
import pytest

from fractalgen.errors import UserError
from fractalgen.music.bars import BarLayout, main_meter, parse_meter
from fractalgen.music.chords import UNTOLD, parse_chord
from fractalgen.music.form import NEW, NOT_SAID, find_returns, parse_form, returns_of, sections_of
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.plan import Plan, bars_left, bars_to_end, markers, unit_chords
from fractalgen.music.planning import heard, piece_plan
from tests import tiny


def bars(*kinds: int) -> np.ndarray:
    """Columns (n, 128, 16), each of a kind by its number."""
    return np.stack([tiny.tokens(kind, 16, 12) for kind in kinds])


def test_bars_that_come_back_are_found_at_the_right_distance() -> None:
    a, b = [1, 2, 3, 4], [5, 6, 7, 8]
    found = find_returns(bars(*a, *b, *a, *b))
    assert found.tolist() == [NEW] * 8 + list(range(8))
    assert find_returns(bars(1, 1, 1, 1)).tolist() == [NEW] * 4  # a texture that goes on, nothing that comes back
    silent = np.zeros((12, 128, 16), np.uint8)
    assert find_returns(silent).tolist() == [NEW] * 12


def test_a_return_goes_on_where_two_bars_fit_equally() -> None:
    """Bars 0 and 4 are equal; what began with bar 4 goes on from there."""
    found = find_returns(bars(1, 2, 3, 4, 1, 6, 7, 8, 9, 10, 11, 12, 4, 1, 6, 7))
    assert found.tolist()[12:] == [3, 4, 5, 6]


def test_forms() -> None:
    assert parse_form("A8 A8 B4 A8") == [("A", 8), ("A", 8), ("B", 4), ("A", 8)]
    assert parse_form("a b' C2") == [("A", 8), ("B'", 8), ("C", 2)]
    assert parse_form("AAB") == [("A", 8), ("A", 8), ("B", 8)]
    assert parse_form("Intro2，Verse8, Verse'") == [("Intro", 2), ("Verse", 8), ("Verse'", 8)]
    assert returns_of(parse_form("A2 B2 A3")).tolist() == [NEW] * 4 + [0, 1, NEW]
    assert returns_of(parse_form("A2 A2 A2")).tolist() == [NEW, NEW, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [("A8 8B", "'8B' at position 4"), ("", "no section"), ("A0", "0 bars"), ("A8 ?", "position 4")],
)
def test_forms_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        parse_form(text)


def test_sections_are_named_by_what_comes_back() -> None:
    returns = returns_of(parse_form("A8 A8 B8 A8"))
    assert sections_of(returns) == [(0, "A"), (8, "A"), (16, "B"), (24, "A")]
    assert sections_of(np.full(8, NEW)) == [(0, "A")]


def test_plans_of_pieces() -> None:
    layout = BarLayout.of(((0, 4, 4),), 24 * 16, 4, 16)
    plan = piece_plan(layout, 4, chords="C F", form="A8 B8 A8")
    assert plan.named_sections() == ((0, "A"), (8, "B"), (16, "A"))
    assert plan.returns.tolist() == [NEW] * 16 + list(range(8))
    assert plan.left.tolist() == [16] * 20 + [4, 3, 2, 1]
    assert (plan.chords > 0).all()
    assert markers(plan, layout)[:4] == [(0, "[A]"), (0, "C"), (16, "F"), (32, "C")]
    composed = np.zeros(24 * 16, bool)
    composed[24:40] = composed[140:150] = True
    wanted = [(24, "[A]"), (24, "F"), (32, "C"), (140, "[B]"), (140, "C"), (144, "F")]
    assert markers(plan, layout, composed=composed) == wanted
    assert not piece_plan(layout, 4).chords.any()
    with pytest.raises(UserError, match="--form A8 B8: 16 bars in all, the piece has 24"):
        piece_plan(layout, 4, form="A8 B8")
    same = Plan.from_dict(plan.to_dict())
    assert np.array_equal(same.chords, plan.chords)
    assert same.sections == plan.sections


def test_only_what_is_given_whole_is_heard() -> None:
    tokens = np.concatenate(list(bars(1, 2, 3, 4, 1, 2, 3, 4)), 1).astype(np.int16)
    layout = BarLayout.of(((0, 4, 4),), 128, 4, 16)
    known = tokens.copy()
    known[60:, 40:48] = -1  # in the third bar
    plan = heard(layout, known, ((0, 4, 4),), 4)
    told = plan.chords.reshape(8, 4) != UNTOLD
    assert told[2].tolist() == [True, True, False, False]
    assert np.delete(told, 2, 0).all()
    assert plan.returns.tolist() == [NEW, NEW, NOT_SAID, NEW, 0, 1, NOT_SAID, 3]
    wanted = piece_plan(layout, 4, known=known, meters=((0, 4, 4),), chords="Am")
    assert (wanted.chords.reshape(8, 4)[2, 2:] == parse_chord("Am")).all()
    assert np.array_equal(np.delete(wanted.chords, [10, 11]), np.delete(plan.chords, [10, 11]))


def test_changes_of_chord_by_step() -> None:
    layout = BarLayout.of(((0, 3, 4),), 24, 4, 16)
    codes = unit_chords(layout, ((0, 5), (12, 9)))
    assert codes.reshape(2, 4).tolist() == [[5, 5, 5, UNTOLD], [9, 9, 9, UNTOLD]]
    assert bars_left(layout).tolist() == [2, 1]


def test_a_piece_is_told_of_its_end_in_its_last_bars() -> None:
    layout = BarLayout.of(((0, 4, 4),), 8 * 16, 4, 16).window(0, 9)
    assert bars_left(layout).tolist() == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert bars_to_end(layout).tolist() == [16, 16, 16, 16, 4, 3, 2, 1, 0]


def test_plans_that_cannot_be() -> None:
    def nothing(count: int) -> np.ndarray:
        return np.zeros(count, np.int64)

    with pytest.raises(UserError, match="comes back to a bar that does not lie before it"):
        Plan(nothing(8), np.array([0, 0]), nothing(2))
    with pytest.raises(UserError, match="chords, 2 returns"):
        Plan(nothing(7), np.array([-1, 0]), nothing(2))
    with pytest.raises(UserError, match="chord codes"):
        Plan(np.full(8, 99_999), np.array([-1, 0]), nothing(2))


def test_meters() -> None:
    assert parse_meter(" 6/8") == (6, 8)
    assert main_meter(((0, 4, 4), (16, 3, 4)), 64) == (3, 4)
    often = ((0, 4, 4), (32, 3, 4), (68, 4, 4))  # 64 and 36 of 100 steps, though the longest stretch is in 3/4
    assert main_meter(often, 100) == (4, 4)
    assert PianoRoll(np.zeros((128, 100), np.uint8), time_signatures=often).steps_per_bar == 16
    for text in ("waltz", "3/5", "0/4", "99/4"):
        with pytest.raises(UserError, match="--meter"):
            parse_meter(text)
