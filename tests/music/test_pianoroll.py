"""Rolls, notes, musical time, and MIDI there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fractalgen.errors import UserError
from fractalgen.music import MAX_STEPS
from fractalgen.music.midi import BeatMap, read_midi
from fractalgen.music.midi_events import NoteEvents, read_file
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import (
    HOLD,
    NOTE,
    ONSET,
    grid_steps,
    merge_notes,
    midi_velocity,
    notes_from_tokens,
    orphan_holds,
    tokens_from_notes,
    velocities,
    velocity_bin,
)
from tests.midi_files import delta, meter, midi, off, on, scale, tempo

BINS = st.sampled_from([1, 8, 32, 64])


@st.composite
def rolls(draw: st.DrawFn) -> PianoRoll:
    """Any roll without interior orphans: notes of any length, cut at the left edge, silence at either end."""
    width, cut, bins = draw(st.integers(0, 60)), draw(st.integers(0, 10)), draw(BINS)
    spq = draw(st.sampled_from([1, 3, 4, 12]))
    note = st.tuples(st.integers(0, 127), st.integers(0, width + cut), st.integers(1, 30), st.integers(0, bins - 1))
    rows = np.array(draw(st.lists(note, max_size=30)), np.int64).reshape(-1, 4)
    notes = merge_notes(rows[:, 0], rows[:, 1], rows[:, 1] + rows[:, 2], rows[:, 3])
    tokens = tokens_from_notes(notes, cut, width + cut)
    steps = st.integers(0, max(width, 1))
    tempos = draw(st.lists(st.tuples(steps, st.floats(4, 1000)), max_size=4))
    meters = draw(st.lists(st.tuples(steps, st.integers(1, 255), st.sampled_from([1, 2, 4, 8, 16, 64])), max_size=4))
    return PianoRoll(tokens, spq, bins, tuple(tempos), tuple(meters))


@given(rolls())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_roll_midi_roll_is_the_identity(tmp_path: Path, roll: PianoRoll) -> None:
    roll.to_midi(tmp_path / "a.mid")
    again = PianoRoll.from_midi(tmp_path / "a.mid", roll.steps_per_quarter, roll.velocity_bins)
    assert again == roll
    assert again.midi_file() == (tmp_path / "a.mid").read_bytes()
    assert again.seconds == pytest.approx(roll.seconds)


@given(rolls())
@settings(deadline=None)
def test_tokens_notes_tokens_is_the_identity_but_for_the_left_edge(roll: PianoRoll) -> None:
    again = PianoRoll.from_notes(
        roll.notes(), roll.width, steps_per_quarter=roll.steps_per_quarter, velocity_bins=roll.velocity_bins
    )
    held = roll.tokens[:, :1] == HOLD
    assert np.array_equal(again.tokens[:, 1:], roll.tokens[:, 1:])
    assert np.array_equal(np.where(held, HOLD, again.tokens[:, :1]), roll.tokens[:, :1])
    assert (again.tokens[:, :1][held] == ONSET + roll.velocity_bins // 2).all()
    assert orphan_holds(roll.tokens) == orphan_holds(again.tokens) == 0


@given(rolls(), st.integers(0, 70), st.integers(0, 70))
@settings(deadline=None)
def test_an_excerpt_is_a_slice(roll: PianoRoll, a: int, b: int) -> None:
    start, stop = sorted((min(a, roll.width), min(b, roll.width)))
    whole = PianoRoll.from_notes(roll.notes(), roll.width, velocity_bins=roll.velocity_bins).tokens
    assert np.array_equal(tokens_from_notes(roll.notes(), start, stop), whole[:, start:stop])


@pytest.mark.parametrize("bins", [1, 2, 8, 16, 32, 33, 64])
def test_bin_centres_lie_in_their_bins(bins: int) -> None:
    centres = midi_velocity(np.arange(bins), bins)
    assert 1 <= centres.min() <= centres.max() <= 127
    assert velocity_bin(centres, bins).tolist() == list(range(bins))


def test_struck_again_while_sounding_is_cut_and_struck_together_is_merged() -> None:
    notes = merge_notes([60, 60, 60, 64], [0, 4, 4, 2], [16, 6, 9, 2], [5, 3, 7, 1])
    assert notes.tolist() == [(60, 0, 4, 5), (64, 2, 1, 1), (60, 4, 5, 7)]


def test_interior_orphans_are_counted_and_sound_as_notes() -> None:
    tokens = np.zeros((128, 8), np.uint8)
    tokens[60, 0] = tokens[60, 3] = tokens[60, 4] = HOLD
    assert orphan_holds(tokens) == 1
    assert notes_from_tokens(tokens).tolist() == [(60, 0, 1, 16), (60, 3, 2, 16)]


def test_velocities_follow_the_note() -> None:
    tokens = np.zeros((128, 6), np.uint8)
    tokens[60] = [HOLD, HOLD, 0, ONSET + 31, HOLD, 0]
    tokens[61] = [0, ONSET, HOLD, ONSET + 8, HOLD, HOLD]
    expected = velocities(tokens)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(expected[60], np.array([63.5, 63.5, 0, 126, 126, 0]) / 127)
    np.testing.assert_allclose(expected[61], np.array([0, 2, 2, 34, 34, 34]) / 127)
    assert velocities(np.stack([tokens, tokens])).shape == (2, 128, 6)


def test_bars_and_beats() -> None:
    meters = ((0, 4, 4), (32, 2, 4), (40, 6, 8))
    assert grid_steps(meters, 60).tolist() == [0, 16, 32, 40, 52]
    assert grid_steps(meters, 60, unit="beat").tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 46, 52, 58]
    assert grid_steps(((0, 7, 8),), 30).tolist() == [0, 14, 28]


def test_seconds_follow_the_tempo() -> None:
    roll = PianoRoll(np.zeros((128, 16), np.uint8), tempos=((0, 60.0), (8, 120.0)))
    assert roll.seconds == pytest.approx(3.0)
    np.testing.assert_allclose(roll.time_of([0, 4, 8, 12]), [0, 1, 2, 2.5])


def test_a_roll_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="shape"):
        PianoRoll(np.zeros((64, 4), np.uint8))
    with pytest.raises(ValueError, match="tokens"):
        PianoRoll(np.full((128, 4), 34, np.uint8))
    for wrong in ({"velocity_bins": 65}, {"steps_per_quarter": 0}, {"tempos": ((0, 0.0),)}):
        with pytest.raises(UserError):
            PianoRoll(np.zeros((128, 4), np.uint8), **wrong)
    with pytest.raises(UserError, match="4/5"):
        PianoRoll(np.zeros((128, 4), np.uint8), time_signatures=((0, 4, 5),))
    assert PianoRoll(np.zeros((128, 4), np.uint8)) != "a roll"


def read(tmp_path: Path, content: bytes) -> PianoRoll:
    path = tmp_path / "odd.mid"
    path.write_bytes(content)
    return PianoRoll.from_midi(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"These are not notes, but words." * 9, "not a MIDI file"),
        (midi(scale())[:9], "truncated"),
        (midi(scale())[:14], "damaged or truncated (no track in it)"),
        (midi(b""), "no notes"),
        (midi(on(0, 36, channel=9) + off(99, 36, channel=9)), "only drums"),
        (midi(scale(), division=0xE728), "SMPTE"),
        (midi(scale(), division=0), "0 ticks"),
        (midi(scale(), scale(), kind=2), "type 2"),
        (midi(on(0, 60) + off((1 << 28) - 1, 60)), f"more than the {MAX_STEPS:,}"),
        (midi((on((1 << 28) - 1, 60) + off((1 << 28) - 1, 60)) * 5), f"more than the {MAX_STEPS:,}"),
        (midi(bytes([0, 0x90, 0xBC, 0xFF])), "no notes; track 0 has a status where data belong at tick 0"),
    ],
)
def test_unusable_midi_is_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert reason in str(caught.value)
    assert str(tmp_path / "odd.mid") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.mid"):
        with pytest.raises(UserError, match="cannot be read"):
            PianoRoll.from_midi(path)


@pytest.mark.parametrize(
    "content",
    [
        midi(scale(), kind=0),
        midi(scale(), kind=2),
        midi(scale(4), delta(4 * 480)[:0] + on(4 * 480, 64) + off(480, 64) + scale(3, first=65)),
        midi(scale(), on(0, 36, channel=9) + off(9000, 36, channel=9)),
        midi(scale(ticks=96), division=96),
        midi(scale(ticks=1001), division=1001),
        midi(scale(ticks=32_767), division=32_767),
        midi(b"\x00\x90" + b"".join(bytes([60 + i, 66, *delta(480), 60 + i, 0, 0]) for i in range(8))[:-1]),
        midi(b"\x00\xff\x06\x04\xff\xfe\x80z" + scale()),
    ],
    ids=["type0", "type2 of one track", "two tracks", "drums too", "96", "1001", "32767", "running status", "no text"],
)
def test_usable_midi_gives_the_same_notes(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content).notes().tolist() == [(60 + i, 4 * i, 4, 16) for i in range(8)]


def test_zero_length_and_overlapping_notes(tmp_path: Path) -> None:
    overlapping = on(0, 60) + on(240, 60) + off(240, 60) + off(480, 60) + on(0, 70) + off(0, 70)
    assert read(tmp_path, midi(overlapping)).notes().tolist() == [(60, 0, 2, 16), (60, 2, 6, 16), (70, 8, 1, 16)]


def test_several_tempi_and_meters_and_impossible_ones(tmp_path: Path) -> None:
    conductor = tempo(0, 0) + meter(0, 0, 2) + tempo(0, 1_000_000) + meter(0, 3, 2) + tempo(480 * 3, 500_000)
    roll = read(tmp_path, midi(conductor + meter(0, 6, 3) + meter(480, 4, 200), scale()))
    assert roll.tempos == ((0, 60.0), (12, 120.0))
    assert roll.time_signatures == ((0, 3, 4), (12, 6, 8))
    assert roll.seconds == pytest.approx(3 + 3)  # the bar of 6/8 is completed


def test_notes_are_those_that_symusic_reads(tmp_path: Path) -> None:
    import symusic

    path = tmp_path / "a.mid"
    random = np.random.default_rng(0)
    tracks = []
    for channel in (0, 3):
        events = b""
        for pitch in random.integers(50, 60, 60).tolist():
            events += on(int(random.integers(0, 200)), pitch, channel=channel)
            events += off(int(random.integers(1, 300)), int(random.integers(50, 60)), channel=channel)
        tracks.append(events + b"".join(off(1, pitch, channel=channel) for pitch in range(50, 60) for _ in range(60)))
    path.write_bytes(midi(*tracks))
    score: Any = symusic.Score(path)
    theirs = sorted((n.time, n.end, n.pitch, n.velocity) for track in score.tracks for n in track.notes)
    notes = [NoteEvents(*row) for row in read_file(path).notes()[0].tolist()]
    assert sorted((n.start, n.end, n.pitch, n.velocity) for n in notes) == theirs


def test_grid_distance(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(midi(scale()))
    assert read_midi(path).grid_distance == 0
    path.write_bytes(midi(on(60, 60) + off(60, 60) + on(0, 61) + off(60, 61)))
    assert read_midi(path).grid_distance == pytest.approx(0.25)  # half a step, and none


def beat_map(tmp_path: Path, rows: list[tuple[float, int, int]]) -> BeatMap:
    path = tmp_path / "beat_midi.txt"
    path.write_text("".join(f"{a} {b} {c}\n" for a, b, c in rows), encoding="utf-8")
    return BeatMap.read(path)


def test_a_beat_map_places_notes_by_seconds(tmp_path: Path) -> None:
    # the file's ticks say 120 a minute; the music is at 75 a minute, and its first bar line comes at 1 s
    beats = beat_map(tmp_path, [(1 + 0.8 * i, 1, int(i % 3 == 0)) for i in range(12)])
    ticks = [round(960 * (1 + 0.8 * beat)) for beat in (-1, 0, 1, 2.25)]  # the first note is an upbeat
    waits = np.diff([0, *ticks]) - [0, 10, 10, 10]
    path = tmp_path / "a.mid"
    path.write_bytes(midi(b"".join(on(wait, 60) + off(10, 60) for wait in waits.tolist())))
    roll = PianoRoll.from_midi(path, beats=beats)
    assert roll.time_signatures == ((0, 3, 4),)
    assert roll.tempos[0][1] == pytest.approx(75, abs=0.01)
    assert len(roll.tempos) == 1
    assert roll.notes()["start"].tolist() == [8, 12, 16, 21]  # the bar before the first bar line is extrapolated


def test_a_beat_map_keeps_tempo_changes_and_irregular_bars(tmp_path: Path) -> None:
    seconds = np.cumsum([0.0] + [0.5] * 8 + [1.0] * 6)
    beats = beat_map(tmp_path, [(s, 1, int(i in (0, 4, 6, 10))) for i, s in enumerate(seconds)])
    assert beats.tempos(0, 4) == ((0, 120.0), (32, 60.0))
    assert beats.meters(0, 4) == ((0, 4, 4), (16, 2, 4), (24, 4, 4))
    assert [beats.origin(beat) for beat in (-0.5, 0, 3.9, 4, 11, 99)] == [-4, 0, 0, 4, 10, 10]
    assert beats.position(np.array([-1.0, 0.25, 4.5, 12.0])).tolist() == [-2, 0.5, 8.5, 16]


@pytest.mark.parametrize("text", ["", "0 1 1\n", "a b c\n0 1 1\n", "1 1 1\n0 1 0\n", "0 1 0\n1 1 0\n", "0 1\n1 1\n"])
def test_a_broken_beat_map_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "beat_midi.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="beat"):
        BeatMap.read(path)


def test_writing_leaves_nothing_half_written(tmp_path: Path) -> None:
    roll = PianoRoll(np.zeros((128, 4), np.uint8))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written"):
        roll.to_midi(tmp_path / "file" / "a.mid")
    (tmp_path / "folder.mid").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        roll.to_midi(tmp_path / "folder.mid")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mid"]


def test_written_midi_says_program_tempo_meter_and_end(tmp_path: Path) -> None:
    notes = np.array([(60, 0, 4, 20)], NOTE)
    PianoRoll.from_notes(notes, 16, tempos=((0, 90.0),), time_signatures=((0, 3, 4),)).to_midi(tmp_path / "a.mid")
    content = (tmp_path / "a.mid").read_bytes()
    assert content.startswith(b"MThd\x00\x00\x00\x06\x00\x01")
    for event in (b"\xff\x51\x03" + (666_667).to_bytes(3, "big"), b"\xff\x58\x04\x03\x02", b"\xc0\x00"):
        assert event in content
    assert content.endswith(b"\xff\x2f\x00")
