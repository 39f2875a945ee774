"""Modes and voices: which cells are given, which are to be composed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractalgen.errors import UserError
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.selection import time_span
from fractalgen.music.tasks import Side, Task, Voice, accompaniment, continuation, inpainting, variation
from fractalgen.music.tokens import HOLD, NO_HOLD, ONSET, UNKNOWN, merge_notes, orphan_holds, tokens_from_notes


def piece(*notes: tuple[int, int, int], width: int = 40) -> PianoRoll:
    """A roll of (pitch, start, stop) at velocity bin 10."""
    pitch, start, stop = np.array(notes).reshape(-1, 3).T
    return PianoRoll(tokens_from_notes(merge_notes(pitch, start, stop, np.full(len(pitch), 10)), 0, width))


@st.composite
def rolls(draw: st.DrawFn) -> PianoRoll:
    """Rolls with at least one note; notes may have begun before."""
    width, cut = draw(st.integers(1, 50)), draw(st.integers(0, 5))
    note = st.tuples(st.integers(0, 127), st.integers(cut, width + cut - 1), st.integers(1, 20))
    rows = np.array(draw(st.lists(note, min_size=1, max_size=30)))
    notes = merge_notes(rows[:, 0], rows[:, 1] - cut * (rows[:, 1] % 2), rows[:, 1] + rows[:, 2], rows[:, 0] % 32)
    return PianoRoll(tokens_from_notes(notes, cut, width + cut))


def check(task: Task, tokens: np.ndarray, patch: int = 16) -> None:
    """What holds for every task: whole patches, known cells as they were, no orphan whatever is composed."""
    assert task.known.dtype == np.int16
    assert task.known.shape[1] % patch == 0
    assert 0 <= task.known.shape[1] - task.width < patch
    assert task.composed.shape == (128, task.width)
    assert task.composed.any()
    shown = task.known[:, : task.width]
    assert np.array_equal(shown[~task.composed], tokens[:, : task.width][~task.composed])
    assert not ((shown[:, 1:] == HOLD) & (shown[:, :-1] == UNKNOWN)).any()
    assert orphan_holds(np.maximum(shown, 0)) == 0


def test_a_continuation_keeps_the_beginning_and_leaves_all_the_rest_open() -> None:
    roll = piece((60, 0, 12), (64, 9, 20))
    task = continuation(roll, 10, 11)
    check(task, np.pad(roll.tokens, ((0, 0), (0, 8))))
    assert (task.width, task.known.shape) == (21, (128, 32))
    assert np.array_equal(task.known[:, :10], roll.tokens[:, :10])
    assert (task.known[:, 10:] == UNKNOWN).all()


@pytest.mark.parametrize(
    ("steps", "length", "reason"),
    [
        (0, 8, "--condition_length 0: the piece has 40 steps"),
        (41, 8, "--condition_length 41: the piece has 40 steps"),
        (8, 0, "--condition_length 8: nothing to compose after it, 0 steps"),
        (8, 65_535, "more than 65535"),
        (6, 8, "--condition_length 6: no note in the first 6 steps"),
    ],
)
def test_wrong_continuations_are_refused(steps: int, length: int, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        continuation(piece((60, 6, 12)), steps, length)


def test_notes_that_a_region_cuts_are_composed_to_their_end() -> None:
    roll = piece(
        (60, 0, 12),  # runs through the region and beyond: 10 and 11 are composed too
        (61, 0, 8),  # ends in it
        (62, 7, 14),  # begins in it: 10 to 13 too
        (63, 10, 12),  # begins where it ends
        (64, 0, 6),  # ends where it begins
        (62, 14, 16),  # struck right after a note that is composed
    )
    task = inpainting(roll, [time_span(roll, 6, 8), time_span(roll, 8, 10)])
    check(task, roll.tokens)
    expected = roll.tokens.astype(int)
    expected[:, 6:10] = UNKNOWN
    expected[60, 10:12] = expected[62, 10:14] = UNKNOWN
    expected[64, 6] = NO_HOLD  # ends as the piece says, whatever is composed after it
    assert np.array_equal(task.known, np.pad(expected, ((0, 0), (0, 8))))


def test_an_empty_region_is_refused() -> None:
    roll = piece((60, 0, 4))
    for rectangles in ([], [np.zeros(roll.tokens.shape, np.bool_)]):
        with pytest.raises(UserError, match="--mask: an empty region"):
            inpainting(roll, rectangles)


@given(rolls(), st.integers(0, 999), st.sampled_from([4, 16]))
@settings(max_examples=60)
def test_inpainting_any_region(roll: PianoRoll, seed: int, patch: int) -> None:
    region = np.random.default_rng(seed).random(roll.tokens.shape) < 0.1
    region[0, 0] = True
    task = inpainting(roll, [region], patch)
    check(task, roll.tokens, patch)
    assert task.composed[region].all()
    assert (task.known[:, roll.width :] == 0).all()
    extended = task.composed & ~region
    assert (roll.tokens[extended] == HOLD).all()  # nothing else is given back
    rows, steps = np.nonzero(extended)
    assert task.composed[rows, steps - 1].all()


def cells(*rows: str) -> np.ndarray:
    """Six steps of four pitches: ``.`` silence, ``o`` onset, ``-`` hold, ``?`` composed, ``x`` so but no hold."""
    return np.array([["x?.-o".index(cell) - 2 for cell in row] for row in reversed(rows)])


def shown(task: Task) -> np.ndarray:
    return np.minimum(task.known[60:64, :6], 2)


def six(*rows: str) -> PianoRoll:
    tokens = np.zeros((128, 6), np.uint8)
    tokens[60:64] = np.where(cells(*rows) == ONSET, ONSET + 10, cells(*rows))
    return PianoRoll(tokens)


SOUNDS = six(
    ".oo...",
    "o--.o.",
    "..o--.",  # struck under another note: not of the highest voice, though it sounds on
    "o.oo.o",  # struck when no kept note sounds: the third of them is of the highest voice
)


@pytest.mark.parametrize(
    ("voice", "side", "expected"),
    [
        ("highest", "below", (".oo...", "o--.o.", "???.?.", "???oxo")),
        ("lowest", "above", ("?ox???", "?.??ox", "?.??.?", "o.oo.o")),
        ("all", "below", (".oo...", "o--.o.", ".?o--.", "oxooxo")),
        ("all", "above", ("?oox??", "o--xox", "..o--x", "o.oo.o")),
    ],
)
def test_voices_and_what_is_composed_beside_them(voice: Voice, side: Side, expected: tuple[str, ...]) -> None:
    task = accompaniment(SOUNDS, voice, side)
    assert shown(task).tolist() == cells(*expected).tolist()
    beyond, other = (task.known[:60, :6], task.known[64:, :6])[:: 1 if side == "below" else -1]
    assert (beyond == UNKNOWN).all()
    assert (other == 0).all()
    assert (task.known[:, 6:] == 0).all()


def test_where_a_voice_rests_its_last_pitch_is_the_border_and_before_its_first_note_that_one() -> None:
    task = accompaniment(six("......", "..o...", "....o.", "......"), "all", "below")
    assert shown(task).tolist() == cells("......", "..o...", "????o.", "??????").tolist()


def test_beside_a_voice_without_notes_everything_is_composed() -> None:
    task = accompaniment(SOUNDS, PianoRoll(np.zeros_like(SOUNDS.tokens)), "below")
    assert (task.known[:, :6] == UNKNOWN).all()


def test_wrong_voices_are_refused() -> None:
    with pytest.raises(UserError, match="no notes"):
        accompaniment(PianoRoll(np.zeros((128, 8), np.uint8)), "all", "below")
    with pytest.raises(UserError, match="--side below: no pitch lies below"):
        accompaniment(piece((0, 0, 4)), "all", "below")
    with pytest.raises(UserError, match="--voice tenor --side below"):
        accompaniment(piece((60, 0, 4)), "tenor", "below")  # type: ignore[arg-type]


VOICES, SIDES = st.sampled_from(["highest", "lowest", "all"]), st.sampled_from(["below", "above"])


@given(rolls(), VOICES, SIDES)
@settings(max_examples=60)
def test_any_voice(roll: PianoRoll, voice: Voice, side: Side) -> None:
    if roll.tokens[[0, 127]].any():
        return
    task = accompaniment(roll, voice, side)
    check(task, np.where(task.known[:, : roll.width] == 0, 0, roll.tokens))  # other notes are forgotten
    known = np.maximum(task.known[:, : roll.width], 0)
    struck, notes = PianoRoll(known).notes(), roll.notes()
    assert set(struck.tolist()) <= set(notes.tolist())  # whole notes of the roll
    if voice == "all":
        assert np.array_equal(struck, notes)
    if voice == "highest":  # each note left out lies under a kept one
        for pitch, start, _, _ in set(notes.tolist()) - set(struck.tolist()):
            assert known[pitch:, start].any()
    swap: dict[str, Any] = {"highest": "lowest", "lowest": "highest", "all": "all", "below": "above", "above": "below"}
    mirror = accompaniment(PianoRoll(roll.tokens[::-1]), swap[voice], swap[side])
    assert np.array_equal(mirror.known[::-1], task.known)


@given(rolls(), VOICES, SIDES, st.data())
@settings(max_examples=100)
def test_any_voice_in_a_part_of_a_piece(roll: PianoRoll, voice: Voice, side: Side, data: st.DataObject) -> None:
    if roll.tokens[[0, 127]].any():
        return
    start = data.draw(st.integers(0, roll.width - 1))
    within = time_span(roll, start, data.draw(st.integers(start + 1, roll.width)))
    task = accompaniment(roll, voice, side, within=within)
    check(task, np.where(task.known[:, : roll.width] == 0, 0, roll.tokens))
    assert np.array_equal(task.known[:, :start], roll.tokens[:, :start])


def test_what_goes_away_in_a_part_of_a_piece_goes_to_its_end() -> None:
    roll = piece((60, 0, 40), (70, 20, 36), (50, 18, 30), (50, 32, 34), (52, 10, 30))
    task = accompaniment(roll, "lowest", "below", within=time_span(roll, 16, 24))
    known = PianoRoll(np.maximum(task.known[:, :40], 0))
    assert known.notes().tolist() == [(60, 0, 40, 10), (52, 10, 20, 10), (50, 18, 12, 10), (50, 32, 2, 10)]


def test_a_variation_composes_its_share_of_the_patches_between_lowest_and_highest_note() -> None:
    roll = piece((30, 0, 4), (70, 20, 24), width=64)  # rows of patches 1 to 4, 4 columns: 16 patches
    for strength, patches in ((0.01, 1), (0.25, 4), (0.5, 8), (1.0, 16)):
        task = variation(roll, strength, np.random.default_rng(3))
        check(task, roll.tokens)
        assert task.composed.sum() // 256 == patches  # and the tails of notes
        assert not task.composed[:16].any()
        assert not task.composed[80:].any()
    first, again, other = (variation(roll, 0.5, np.random.default_rng(seed)).known for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    whole = [variation(roll, 1 / 16, np.random.default_rng(seed)).composed for seed in range(200)]
    assert np.any(whole, axis=0)[16:80].all()  # every patch may be drawn


def test_a_variation_ends_with_the_piece_and_composes_tails() -> None:
    roll = piece((60, 0, 20), width=24)
    drawn = [variation(roll, 0.5, np.random.default_rng(seed)) for seed in range(20)]
    assert {task.composed.sum() for task in drawn} == {256 + 4, 128}  # with the first patch the note's tail goes too
    for task in drawn:
        check(task, roll.tokens)
        assert (task.known[:, 24:] == 0).all()


def test_wrong_variations_are_refused() -> None:
    random = np.random.default_rng(0)
    for strength in (0, 1.1, float("nan")):
        with pytest.raises(UserError, match=f"--strength {strength}: "):
            variation(piece((60, 0, 4)), strength, random)
    with pytest.raises(UserError, match="no notes"):
        variation(PianoRoll(np.zeros((128, 8), np.uint8)), 0.5, random)
