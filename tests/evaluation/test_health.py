"""What looks wrong is found, in figures worked out by hand, and real music is left in peace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen.cli import main
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import ValidCrops
from fractalgen.evaluation.health import (
    FIGURES,
    FINDINGS,
    POP909,
    Reference,
    find_faults,
    health_figures,
    health_summary,
)
from fractalgen.features.notes import crop_tokens
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import HOLD
from fractalgen.trace import Trace
from tests import tiny

Roll = np.ndarray[Any, np.dtype[np.uint8]]
WIDTH = 64  # 8 x 4 patches


def empty(width: int = WIDTH) -> Roll:
    return np.zeros((128, width), np.uint8)


def trace(tokens: Roll, order: str = "column_major", known: Any = None) -> Trace:
    """``tokens`` as composed patch by patch in an ``order``; "mar": eight steps, all over the roll."""
    if order != "mar":
        return tiny.trace(tokens, order=order, known=known)
    made = tiny.trace(tokens, kind="mar", moments=8)
    step = np.random.default_rng(0).permutation(tokens.size // 256).reshape(8, -1) * 2048 // tokens.size
    return replace(made, decided=np.stack([step.repeat(16, 0).repeat(16, 1).astype(np.int16), *made.decided[1:]]))


def names(piece: Trace | Roll, reference: Reference = POP909) -> set[str]:
    return {finding.name for finding in find_faults(piece, reference)}


@pytest.fixture(scope="module")
def chorales() -> Roll:
    """Real crops, (n, 128, 256)."""
    corpus = Corpus.open("chorales")
    return np.concatenate([crop_tokens(ValidCrops(corpus, split, 256)) for split in ("valid", "test")])


def test_real_music_is_left_in_peace(chorales: Roll) -> None:
    assert len(chorales) > 100
    crops = chorales[::2]
    for reference in (POP909, Reference.of(chorales)):
        assert sum(bool(find_faults(tokens, reference)) for tokens in crops) <= 0.02 * len(crops)
    for order in ("column_major", "row_major", "mar"):
        assert sum(bool(find_faults(trace(tokens, order))) for tokens in crops) <= 0.02 * len(crops)


def four_at_once(tokens: Roll) -> Roll:
    """The piece and three transpositions of it, which share few cells."""
    return np.maximum.reduce([np.roll(tokens, shift, axis=0) for shift in (0, 1, 13, 14)])


def thinned(tokens: Roll) -> Roll:
    few = np.zeros_like(tokens)
    few[60, ::32] = 20
    few[64, 8::32] = 20
    return few


def on_one_pitch(tokens: Roll) -> Roll:
    few = np.zeros_like(tokens)
    few[60] = tokens[tokens.any(axis=1)].max(axis=0)
    return few


def with_a_stuck_note(tokens: Roll) -> Roll:
    stuck = tokens.copy()
    stuck[30, 0], stuck[30, 1:] = 20, HOLD
    return stuck


def with_an_orphan(tokens: Roll) -> Roll:
    orphan = tokens.copy()
    orphan[20, 100] = HOLD
    return orphan


def looped(tokens: Roll) -> Roll:
    bar = tokens[:, 32:48].copy()
    bar[:, 0][bar[:, 0] == HOLD] = 20
    return np.tile(bar, 16)


def restless(tokens: Roll) -> Roll:
    random = np.random.default_rng(0)
    chords = np.zeros_like(tokens)
    for step in range(tokens.shape[1]):
        chords[random.choice(np.arange(40, 80), 3, replace=False), step] = 20
    return chords


def blocks(tokens: Roll) -> Roll:
    """Every 4x4 patch is full or silent."""
    return (tokens.reshape(32, 4, -1, 4).any((1, 3)).repeat(4, 0).repeat(4, 1) * 20).astype(np.uint8)


def at_once(tokens: Roll) -> Roll:
    """Notes in two bars out of sixteen; the bars before and after them are composed, and sparse."""
    few = np.zeros_like(tokens)
    few[:, 96:128] = tokens[:, 96:128]
    few[50, ::16] = 20
    return few


def ends_early(tokens: Roll) -> Roll:
    early = tokens.copy()
    early[:, 80:] = 0
    return early


@pytest.mark.parametrize(
    ("name", "spoil", "of_trace"),
    [
        ("silent", np.zeros_like, False),
        ("saturated", lambda tokens: np.full_like(tokens, 20), False),
        ("dense", four_at_once, False),
        ("sparse", thinned, False),
        ("far_pitches", lambda tokens: np.roll(tokens, 45, axis=0), False),
        ("one_pitch", on_one_pitch, False),
        ("stuck_note", with_a_stuck_note, False),
        ("orphan_holds", with_an_orphan, False),
        ("repetition", looped, False),
        ("no_rests", restless, False),
        ("not_refined", blocks, True),
        ("jump", at_once, True),
        ("frozen", ends_early, True),
    ],
)
def test_spoilt_music_is_found(chorales: Roll, name: str, spoil: Callable[[Roll], Roll], of_trace: bool) -> None:
    tokens = next(crop for crop in chorales if crop.any(axis=0).all())  # sounds to the end
    assert names(tokens) == names(trace(tokens)) == set()
    spoilt = spoil(tokens)
    assert name in names(trace(spoilt))
    assert (name in names(spoilt)) == (not of_trace)


def test_all_findings_are_tested() -> None:
    marks: Any = test_spoilt_music_is_found.pytestmark  # type: ignore[attr-defined]
    assert tuple(case[0] for case in marks[0].args[1]) == FINDINGS


def test_figures_by_hand() -> None:
    tokens = empty()
    for step in range(0, WIDTH, 4):  # a quarter note on each beat, three of four on C4
        tokens[60 if step % 16 else 25, step : step + 4] = 20, 1, 1, 1
    tokens[64, 0] = 1  # began before
    tokens[62, 0] = 5
    figures = health_figures(tokens, Reference((36, 80), (0.01, 0.04)))
    assert figures.keys() == FIGURES.keys()
    expected = {
        "notes": 17,
        "density": 66 / (128 * WIDTH),
        "pitch_min": 25,
        "pitch_max": 64,
        "far_pitches": 4 / 17,  # 25 is below 36 - 6
        "commonest_pitch": 12 / 17,
        "longest_note": 0.25,
        "orphan_holds": 0,
        # a bar later: four on 25 and twelve on 60 minus one bar each, 3 + 9, of 16 + one that does not come back
        "repetition": 12 / 13,
        "struck_steps": 1 / WIDTH,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    assert all(math.isnan(figures[name]) for name in ("refinement", "jump", "frozen"))


def test_a_note_may_last_four_bars_and_no_longer() -> None:
    tokens = empty(80)
    tokens[50, 0], tokens[50, 1:64] = 20, HOLD
    assert health_figures(tokens)["longest_note"] == 4
    assert "stuck_note" not in names(tokens)
    tokens[50, 64] = HOLD
    (finding,) = [finding for finding in find_faults(tokens) if finding.name == "stuck_note"]
    assert (finding.value, finding.limit, finding.reason) == (65 / 16, 4, "a note is held for 4.1 bars")


def test_process_figures_by_hand() -> None:
    tokens = empty()
    tokens[60:64, 20:24] = 20  # one 4x4 patch, in the fourth patch of the second column: the twelfth of 32
    figures = health_figures(trace(tokens))
    assert figures["refinement"] == 0  # cells against 4x4; 4x4 against 16x16 is 1 - 16/256
    assert figures["frozen"] == pytest.approx(20 / 32)
    assert figures["jump"] == pytest.approx(1 - 4 / 32)  # eight frames of four patches
    row = health_figures(trace(tokens, "row_major"))
    assert row["frozen"] == pytest.approx(18 / 32)  # the 14th patch
    tokens[60:62, 20:24] = 0
    tokens[61, 20:24] = 20
    assert health_figures(trace(tokens))["refinement"] == pytest.approx(1 / 4)
    assert health_figures(trace(empty()))["frozen"] == 1


def test_limits_follow_the_order_of_composing() -> None:
    random = np.random.default_rng(1)
    tokens = empty()
    for pitch, step in zip(random.integers(32, 48, 40), random.integers(0, 32, 40) * 2, strict=True):
        tokens[pitch, step] = 20
    # all notes lie in one pitch row, of eight frames one: 7/8 too many; before and after it nothing is composed
    assert {"jump", "frozen"} <= names(trace(tokens, "row_major"))
    assert not {"jump", "frozen"} & names(trace(tokens))
    tokens[48:64] = tokens[32:48]
    assert not {"jump", "frozen"} & names(trace(tokens, "row_major"))


def test_what_was_given_is_not_judged_as_composed(chorales: Roll) -> None:
    tokens = next(crop for crop in chorales if crop.any(axis=0).all())
    known = np.zeros(tokens.shape, bool)
    known[:, :128] = True
    silent_tail = np.where(known, tokens, 0).astype(np.uint8)
    figures = health_figures(trace(silent_tail, known=known))
    assert figures["frozen"] == 1
    assert math.isnan(figures["jump"])
    assert math.isnan(figures["refinement"])
    known[:, :224] = True  # 16 patches left: too few to say anything
    figures = health_figures(trace(silent_tail, known=known))
    assert math.isnan(figures["frozen"])


def test_silence_says_it_all() -> None:
    (finding,) = find_faults(trace(empty()))
    assert (finding.name, finding.reason) == ("silent", "nothing sounds")


def test_reference() -> None:
    rolls = np.zeros((3, 128, 16), np.uint8)
    rolls[0, 40:50, 0] = 20
    rolls[1, 60:70, 0] = 20
    assert Reference.of(rolls) == Reference((40.2, 68.8), (10 / 2048, 10 / 2048))  # 1 % of 40 to 60, 99 % of 49 to 69
    with pytest.raises(ValueError, match="a roll that sounds"):
        Reference.of(rolls[2])
    low = Reference((20, 40), POP909.density)
    assert "far_pitches" in names(rolls[1], low)
    assert "far_pitches" not in names(rolls[1], POP909)


def test_summary_of_samples(chorales: Roll) -> None:
    fine = next(crop for crop in chorales if crop.any(axis=0).all())
    scalars, line = health_summary([fine, trace(fine)])
    assert line == ""
    assert scalars["healthy"] == 1
    assert scalars["density"] == pytest.approx((fine > 0).mean())
    assert {name for name in scalars if name.startswith("found_")} == {f"found_{name}" for name in FINDINGS}

    scalars, line = health_summary([fine, with_a_stuck_note(fine), np.zeros_like(fine), np.zeros_like(fine)])
    assert line == "3 of 4 look wrong: 2 silent (nothing sounds); 1 stuck_note (a note is held for 16.0 bars)"
    assert scalars["healthy"] == 0.25
    assert (scalars["found_silent"], scalars["found_stuck_note"], scalars["found_jump"]) == (0.5, 0.25, 0)
    assert scalars["pitch_min"] == (health_figures(fine)["pitch_min"] + 30) / 2  # silence has no pitch
    assert "jump" not in scalars


def test_diagnose(chorales: Roll, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = next(crop for crop in chorales if crop.any(axis=0).all())
    midi, good, bad = (str(tmp_path / name) for name in ("a.mid", "b.trace.npz", "c.trace.npz"))
    PianoRoll(fine).to_midi(midi)
    trace(fine).save(good)
    trace(with_an_orphan(fine)).save(bad)
    assert main(["diagnose", midi, good]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{midi}: healthy"
    notes = int((fine >= 2).sum())
    assert lines[1].split() == ["notes", str(notes)]
    assert lines[2].endswith("at most 7.6%, at least 0.4%")
    assert len(lines) == 2 + (len(FIGURES) - 3) + len(FIGURES)  # a MIDI file does not tell how it was made
    assert main(["diagnose", good, bad]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"{bad}: 1 finding" in lines
    assert lines[-1] == "  orphan_holds: holds of a note that was never struck: 1"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.wav", b"RIFF", "neither a trace (.npz) nor a MIDI file (.mid, .midi)"),
        ("a.trace.npz", b"PK", "not a FractalGen trace"),
        ("a.mid", b"MThd", ""),
        ("absent.mid", None, ""),
        ("absent.npz", None, "cannot be read: No such file"),
    ],
)
def test_files_that_cannot_be_read(
    name: str, content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["diagnose", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fractalgen: error: {path}: ")
    assert error.count("\n") == 1
    assert message in error


def test_bars_are_those_of_the_piece() -> None:
    tokens = np.zeros((128, 96), np.uint8)
    tokens[60, 0], tokens[60, 1:80] = 9, 1  # twenty quarters at four steps each, ten at eight
    assert health_figures(PianoRoll(tokens, 4))["longest_note"] == 5
    assert health_figures(PianoRoll(tokens, 8))["longest_note"] == 2.5
    assert health_figures(PianoRoll(tokens, 4, time_signatures=((0, 5, 4),)))["longest_note"] == 4
    trace = replace(tiny.intermediates(tokens[None]).traces[0], settings={"steps_per_quarter": 8})
    assert health_figures(trace)["longest_note"] == 2.5
