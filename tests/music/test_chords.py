"""Chords: codes, spelling, both notations, progressions, and their estimate."""

from __future__ import annotations

import numpy as np
import pytest

from fractalgen.errors import UserError
from fractalgen.music.bars import BarLayout
from fractalgen.music.chord_estimate import annotated_chords, estimate_chords
from fractalgen.music.chords import (
    CODES,
    FIRST,
    NO_CHORD,
    QUALITIES,
    UNTOLD,
    Chord,
    parse_chord,
    parse_harte,
    spelled,
    transposed_chords,
)
from fractalgen.music.progression import parse_progression, progression_chords
from fractalgen.music.tokens import PITCHES


def test_every_chord_is_read_as_it_is_spelled() -> None:
    for code in range(FIRST, CODES):
        for flats in (True, False):
            assert parse_chord(spelled(code, flats)) == code
        chord = Chord.of(code)
        assert chord is not None
        assert chord.code == code
    assert spelled(NO_CHORD) == "N.C."
    assert spelled(UNTOLD) == ""


# As it is written, and what it means to a model.
WRITTEN = """
C=C F#m7=Gbm7 Bb/D=Bb/D Gsus4=Gsus4 B♭maj7=Bbmaj7 Am11=Am7 G9=G7 Cadd9=C Co=Cdim C+=Caug Dm7-5=Dm7b5
CΔ=Cmaj7 CΔ7/E=Cmaj7/E C-7=Cm7 n.c.=N.C. NC=N.C. E5=E C13=C7 Cmi7=Cm7 Cma7=Cmaj7 C^7=Cmaj7 C△=Cmaj7 Caug7=Caug
G7alt=Gaug Cm(add9)=Cm C6/9=C6 C69=C6 C6/9/E=C6/E CmMaj7=CmM7 Cm(maj7)=CmM7 CmM7/G=CmM7/G C-Δ7=CmM7 CMaj9=Cmaj7
C-6=Cm6 C(b5)=C Cm7(b5)=Cm7b5 C9sus=C7sus4
C(7)=C7 C(#5)=Caug CM=C Cadd2=C Cmadd11=Cm CMI7=Cm7 CMA7=Cmaj7 Cj7=Cmaj7 Cm13=Cm7 Cmaj11=Cmaj7 Cm(b5)=Cdim Ch7=Cm7b5
C13sus=C7sus4 C7b9sus4=C7sus4 Cm7sus4=C7sus4 C7sus4(b9)=C7sus4 Csus2sus4=Csus2 C7(b9,#11)=C7 C7#5#9=Caug C7b5#9=C7
Cmaj7(b5)=Cmaj7 Cmaj9#11=Cmaj7 Cdim(maj7)=Cdim C+maj7=Caug Cm11b5=Cm7b5 C7(9,13)=C7 C9no5=C7 C(no3)=C C7+5=Caug
F#º=Gbdim Bbb=A Bbb5=Bb B##m=Dbm Calt=Caug
"""


@pytest.mark.parametrize("pair", WRITTEN.split())
def test_chords_as_musicians_write_them(pair: str) -> None:
    text, _, means = pair.partition("=")
    assert spelled(parse_chord(text)) == means


@pytest.mark.parametrize(
    "text",
    [
        "H",
        "Cfoo",
        "",
        "C/",
        "c",
        "7",
        "C//E",
        "C/5",
        "C/9",
        "C6/9/9",
        "C(",
        "C67",
        "Cadd",
        "C" + "add9" * 5000,
        "C55",
        "C7(",
    ],
)
def test_what_is_no_chord_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no chord"):
        parse_chord(text)


HARTE = """
B:maj=B G:min7/b7=Gm7/F Eb:maj/3=Eb/G A:sus4(b7)=A7sus4 F:hdim7=Fm7b5 A:min7(11)=Am7 Ab:aug(b7)=Abaug
Bb:maj6(9)/5=Bb6/F C:7(*3,4)=C7sus4 D:(1,b3,5)=Dm N=N.C.
"""


@pytest.mark.parametrize("pair", HARTE.split())
def test_harte_notation(pair: str) -> None:
    text, _, means = pair.partition("=")
    assert spelled(parse_harte(text)) == means


@pytest.mark.parametrize("text", ["H:maj", "C:foo", "C:maj(", "C:maj(8)", "C:maj/8", "c:maj"])
def test_what_is_no_chord_of_harte_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no chord in Harte's notation"):
        parse_harte(text)


def test_transposition_turns_roots_alone() -> None:
    codes = np.arange(CODES)
    up = transposed_chords(codes, 5)
    assert np.array_equal(transposed_chords(up, -5), codes)
    assert up[:FIRST].tolist() == [UNTOLD, NO_CHORD]
    assert spelled(int(transposed_chords(np.array([parse_chord("Bb/D")]), 2)[0])) == "C/E"


def test_progressions() -> None:
    c, g_b, am, f = map(parse_chord, ("C", "G/B", "Am", "F"))
    assert parse_progression("C, G/B｜Am，F") == [(c, g_b), (am, f)]
    assert parse_progression("C G/B Am F") == [(c,), (g_b,), (am,), (f,)]
    assert parse_progression("C G/B | Am F |") == [(c, g_b), (am, f)]
    assert parse_progression("C . | % | F ?") == [(c, c), (c, c), (f, UNTOLD)]
    assert parse_progression("C % F") == [(c,), (c,), (f,)]
    assert parse_progression("C\nG/B Am\n") == [(c,), (g_b,), (am,)]
    assert parse_progression("# a song\nC | G/B Am\n\nF ||\nC") == [(c,), (g_b, am), (f,), (c,)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C G Xm7", "position 5: 'Xm7' is no chord"),
        ("", "no chord in it"),
        ("| |", "no chord in it"),
        ("% C", "position 1: '%': there is no bar before it"),
        ("C | % C", "position 5: '%' must be alone in its bar"),
        (". C", "position 1: '.': there is no chord before it"),
        ("C | | G", "position 1: an empty bar follows"),
        ("C | G\nAm Hm", "line 2, position 4: 'Hm' is no chord"),
        ("||: C :||", "position 3: ':' is no chord"),
    ],
)
def test_progressions_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.").replace("|", r"\|")):
        parse_progression(text)


def test_a_progression_fills_the_units_of_its_bars_and_repeats() -> None:
    c, g, f = map(parse_chord, "CGF")
    four = BarLayout.of(((0, 4, 4),), 64, 4, 16)
    assert progression_chords([(c, g), (f,)], four).reshape(4, 4).tolist() == [[c, c, g, g], [f] * 4] * 2
    some = np.arange(16) // 4 % 3 > 0  # nothing is composed in the first and the last bar
    assert progression_chords([(c,), (f,)], four, some).reshape(4, 4)[:, 0].tolist() == [UNTOLD, c, f, UNTOLD]
    three = BarLayout.of(((0, 3, 4),), 24, 4, 16)
    assert progression_chords([(c, g, f)], three).reshape(2, 4).tolist() == [[c, g, f, UNTOLD]] * 2
    five = BarLayout.of(((0, 5, 4),), 40, 4, 16)
    bars = ([chord] * 3 + [UNTOLD, chord, chord] + [UNTOLD] * 2 for chord in (c, f))  # two columns each
    assert progression_chords([(c,), (f,)], five).tolist() == [*next(bars), *next(bars)]
    with pytest.raises(UserError, match="5 bars of chords, the piece has 4 bars to compose"):
        progression_chords([(c,)] * 5, four)
    with pytest.raises(UserError, match="4 chords in bar 1 of the piece, which has room for 3"):
        progression_chords([(c, g, f, c)], three)


def played(text: str, octave: int = 4) -> np.ndarray:
    """A bar of 16 steps: a chord struck on every beat, its bass an octave lower, its root above as a melody."""
    chord = Chord.of(parse_chord(text))
    assert chord is not None
    tokens = np.zeros((PITCHES, 16), np.uint8)
    pitches = [12 * octave + chord.root + step for step in list(QUALITIES.values())[chord.quality]]
    for pitch in [*pitches, 12 * (octave - 1) + (chord.root + chord.bass) % 12, 12 * (octave + 2) + chord.root]:
        tokens[pitch, ::4] = 12
        tokens[pitch, 1::4] = tokens[pitch, 2::4] = tokens[pitch, 3::4] = 1
    return tokens


def test_plain_chords_are_found_and_silence_has_none() -> None:
    names = ["C", "Am", "F", "G7", "Em/G", "Dm7", "Bdim", "Csus4", "Bb/D", "Fmaj7"]
    tokens = np.concatenate([np.zeros((PITCHES, 16), np.uint8), *map(played, names)], 1)
    bars = np.arange(0, tokens.shape[1], 16)
    codes = estimate_chords(tokens, np.arange(0, tokens.shape[1], 4), bars)
    assert [spelled(int(code)) for code in codes[::4]] == ["N.C.", *names]
    up = estimate_chords(np.roll(tokens, 3, 0), np.arange(0, tokens.shape[1], 4), bars)
    assert np.array_equal(up, transposed_chords(codes, 3))
    assert len(estimate_chords(tokens, np.zeros(0, np.int64), bars)) == 0


def test_a_beat_has_the_annotated_chord_that_holds_most_of_it() -> None:
    spans = [(0.0, 1.4, 5), (1.4, 2.0, 7)]
    assert annotated_chords(spans, np.array([0.0, 1.0, 2.0, 3.0])).tolist() == [5, 7, UNTOLD]
    assert annotated_chords([], np.array([0.0, 1.0])).tolist() == [UNTOLD]
