"""Composed cells in a copy of a MIDI file: what was kept is as it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fractalgen.errors import UserError
from fractalgen.music.midi import read_midi
from fractalgen.music.midi_events import PEDAL, NoteEvents, TickGrid, read_file
from fractalgen.music.midi_parser import DRUMS, Event
from fractalgen.music.midi_tracks import find_tracks
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.selection import time_span
from fractalgen.music.splice import splice_midi
from fractalgen.music.tasks import Task, accompaniment, continuation, inpainting
from fractalgen.music.tokens import HOLD, ONSET
from tests.midi_files import END, delta, meta, meter, midi, off, on, scale, tempo
from tests.music.random_files import composing, sources

FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def events_of(path: Path, steps_per_quarter: int = 4) -> tuple[TickGrid, list[list[Event]], list[NoteEvents]]:
    """Tracks and notes in ticks of which whole numbers make a step."""
    file = read_file(path).multiplied(path, steps_per_quarter)
    notes = [NoteEvents(*row) for row in file.notes()[0].tolist()]
    return TickGrid(file.ticks_per_quarter, steps_per_quarter), file.tracks, notes


def notes_of(path: Path, steps_per_quarter: int = 4) -> Counter[tuple[int, ...]]:
    """Track, channel, start, end, pitch and velocity of notes."""
    notes = events_of(path, steps_per_quarter)[2]
    return Counter((t, c, start, end, p, v) for t, c, p, v, start, end, _, _ in map(astuple, notes))


def others_of(path: Path, steps_per_quarter: int = 4) -> list[list[Event]]:
    """All events but notes, ends of tracks, releases of the pedal and the marker of the width."""

    def left_out(data: bytes) -> bool:
        ends = data[:2] == b"\xff\x2f" or data[1:] == bytes([PEDAL, 0])
        return data[0] >> 4 in (8, 9) or ends or b"end of roll" in data

    return [[event for event in part if not left_out(event.data)] for part in events_of(path, steps_per_quarter)[1]]


def spliced(
    source: Path, path: Path, roll: PianoRoll, region: np.ndarray[Any, Any], seed: int
) -> tuple[Task, PianoRoll]:
    """Compose a region of a file anew, by noise; whatever is no note stays, and what is read is what was composed."""
    task = inpainting(roll, [region])
    result = replace(roll, tokens=composing(task, seed, roll.velocity_bins))
    splice_midi(source, result, task.composed, path)
    assert PianoRoll.from_midi(path, roll.steps_per_quarter) == result  # tokens, tempi and meters
    assert others_of(path, roll.steps_per_quarter)[:-1] == others_of(source, roll.steps_per_quarter)
    return task, result


@given(sources(overlapping=False), st.data())
@FEW
def test_what_is_kept_is_as_it_was(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    source, path = tmp_path / "source.mid", tmp_path / "result.mid"
    source.write_bytes(content)
    per_quarter = data.draw(st.sampled_from([4, 4, 3, 12]))
    roll = PianoRoll.from_midi(source, per_quarter)
    region = np.zeros(roll.tokens.shape, np.bool_)
    for _ in range(data.draw(st.integers(1, 3))):
        a, b = sorted(data.draw(st.tuples(st.integers(0, roll.width), st.integers(0, roll.width))))
        low, high = data.draw(st.sampled_from([(0, 128), (60, 128), (0, 61), (60, 61)]))
        region[low:high, a : b + 1] = True
    region[60, 0] |= not region.any()
    task, result = spliced(source, path, roll, region, data.draw(st.integers(0, 99)))

    before, after = notes_of(source, per_quarter), notes_of(path, per_quarter)
    grid, _, notes = events_of(source, per_quarter)
    pedals = read_file(source).multiplied(source, per_quarter).pedals()
    for track_number, channel, pitch, velocity, start, end, _, off_place in map(astuple, notes):
        key = track_number, channel, start, end, pitch, velocity
        step = grid.step(start)
        stop = step + 1  # where the roll ends it: a pedal may hold it longer than its key is down
        while stop < roll.width and roll.tokens[pitch, stop] == HOLD:
            stop += 1
        goes_on = stop < roll.width and result.tokens[pitch, stop] == HOLD  # lengthened by what follows
        heard = pedals.heard(channel, end, track_number, off_place)
        stop = max(stop, grid.step(heard))  # and it may sound longer, while another part strikes the pitch again
        if channel == DRUMS or not (task.composed[pitch, step:stop].any() or goes_on):
            assert after[key] == before[key]
        elif task.composed[pitch, step]:
            assert not after[key]
        else:  # kept, and composed from some step on: in its place, or beside its pedal in the new track
            assert any((s, p, v) == (start, pitch, velocity) for _, _, s, _, p, v in after)


@given(sources(overlapping=True), st.integers(0, 99), st.floats(0.01, 1))
@FEW
def test_tokens_come_out_of_files_whose_notes_overlap(tmp_path: Path, content: bytes, seed: int, share: float) -> None:
    source, path, again = (tmp_path / name for name in ("source.mid", "result.mid", "again.mid"))
    source.write_bytes(content)
    roll = PianoRoll.from_midi(source)
    region = np.random.default_rng(seed).random(roll.tokens.shape) < share
    _, result = spliced(source, path, roll, region, seed)
    splice_midi(path, result, np.zeros_like(region), again)  # a result is a source like any other
    assert PianoRoll.from_midi(again) == result


@given(sources(overlapping=True), st.integers(0, 99), st.data())
@FEW
@pytest.mark.slow
def test_a_piece_goes_on_after_its_beginning(tmp_path: Path, content: bytes, seed: int, data: st.DataObject) -> None:
    source, path = tmp_path / "source.mid", tmp_path / "result.mid"
    source.write_bytes(content)
    roll = PianoRoll.from_midi(source)
    first = int(np.flatnonzero(roll.tokens.any(0))[0])
    cut = data.draw(st.integers(first + 1, roll.width))
    task = continuation(roll, cut, data.draw(st.integers(1, 40)))
    tempos = read_midi(source).tempos_before(cut)
    meters = tuple(meter for meter in roll.time_signatures if meter[0] <= cut)
    result = PianoRoll(composing(task, seed, roll.velocity_bins), tempos=tempos, time_signatures=meters)
    splice_midi(source, result, task.composed, path, cut=cut)
    assert PianoRoll.from_midi(path) == result
    goes_on = cut in (step for step, _, _ in meters)
    grid, parts, notes = events_of(path)
    for before, after in zip(others_of(source), others_of(path)[:-1], strict=True):
        tempos_stay = [data[:2] == b"\xff\x51" and tick < grid.tick(cut) for tick, data in before]
        assert after == [
            (tick, data)
            for (tick, data), stays in zip(before, tempos_stay, strict=True)
            if stays or (grid.step(tick) < cut + (goes_on and data[:2] == b"\xff\x58") and data[:2] != b"\xff\x51")
        ]
    assert all(grid.step(note.start) < cut or note.track == len(parts) - 1 for note in notes)


def read(path: Path) -> PianoRoll:
    return PianoRoll.from_midi(path)


def composed_in(folder: Path, content: bytes, *cells: tuple[int, int, list[int]]) -> tuple[Path, Path]:
    """A file of this content, and its copy in which cells (pitch, first step, their tokens) were composed."""
    source, path = folder / "a.mid", folder / "b.mid"
    source.write_bytes(content)
    roll = read(source)
    tokens, composed = roll.tokens.copy(), np.zeros(roll.tokens.shape, np.bool_)
    for pitch, start, new in cells:
        span = pitch, slice(start, start + len(new))
        tokens[span], composed[span] = new, True
    result = replace(roll, tokens=tokens)
    splice_midi(source, result, composed, path)
    assert read(path) == result
    return source, path


def statuses(path: Path, track: int = 0) -> list[int]:
    return [data[0] for _, data in events_of(path)[1][track]]


@pytest.mark.parametrize(("tail", "end"), [([HOLD, HOLD], 960), ([HOLD, 0], 840), ([0, 0], 720)])
def test_a_kept_note_whose_tail_is_composed_keeps_its_beginning(tmp_path: Path, tail: list[int], end: int) -> None:
    content = midi(on(17, 60, 91, channel=5) + off(943, 60, channel=5) + on(30, 64) + off(450, 64))
    _, path = composed_in(tmp_path, content, (60, 6, tail))
    assert notes_of(path) == Counter([(0, 5, 17, end, 60, 91), (0, 0, 990, 1440, 64, 66)])


@pytest.mark.parametrize(("second", "end"), [(470, 470), (480, 480), (490, 480)])
def test_a_note_is_lengthened_up_to_the_next_one_on_its_key(tmp_path: Path, second: int, end: int) -> None:
    content = midi(on(0, 60) + off(100, 60) + on(second - 100, 60) + off(5, 60))
    _, path = composed_in(tmp_path, content, (60, 1, [HOLD] * 3))
    assert notes_of(path) == Counter([(0, 0, 0, end, 60, 66), (0, 0, second, second + 5, 60, 66)])
    assert statuses(path) == [0x90, 0x80, 0x90, 0x80, 0xFF]  # ended before it is struck again


def test_overlapping_notes_of_one_key_end_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    content = midi(on(0, 60) + on(480, 60, 99) + off(480, 60) + off(240, 60))
    source, path = composed_in(tmp_path, content, (60, 6, [0] * 4))
    assert read(source).notes().tolist() == [(60, 0, 4, 16), (60, 4, 6, 24)]
    assert notes_of(path) == Counter([(0, 0, 0, 720, 60, 66), (0, 0, 480, 720, 60, 99)])


def test_lone_ends_of_notes_do_not_end_what_is_lengthened(tmp_path: Path) -> None:
    lone = off(240, 60) + off(0, 36, channel=9)
    content = midi(on(0, 60) + off(240, 60) + lone + on(0, 64) + off(720, 64))
    _, path = composed_in(tmp_path, content, (60, 2, [HOLD] * 6))
    assert notes_of(path) == Counter([(0, 0, 0, 960, 60, 66), (0, 0, 480, 1200, 64, 66)])
    assert statuses(path).count(0x89) == 1  # drums are left alone


def test_a_note_that_the_source_has_otherwise_is_taken_from_the_roll(tmp_path: Path) -> None:
    source, path = composed_in(tmp_path, midi(on(7, 60) + off(473, 60)))
    roll = read(source)
    tokens = roll.tokens.copy()
    tokens[60, 0] = ONSET + 20
    splice_midi(source, replace(roll, tokens=tokens), np.zeros(tokens.shape, np.bool_), path)
    assert notes_of(path) == Counter([(1, 1, 0, 480, 60, 82)])


def test_new_notes_stand_on_the_grid_in_their_own_track_and_channel(tmp_path: Path) -> None:
    content = midi(scale(2, ticks=96), on(0, 40, channel=1) + off(96, 40, channel=1), division=96)
    _, path = composed_in(tmp_path, content, (61, 4, [0] * 4), (72, 5, [ONSET + 20, HOLD]))
    kept = [(0, 0, 0, 96, 60, 66), (1, 1, 0, 96, 40, 66)]
    assert notes_of(path) == Counter([*kept, (2, 2, 120, 168, 72, 82)])
    assert b"FractalGen" in path.read_bytes()
    assert b"\xc2\x00" in path.read_bytes()  # program 0 in channel 2


def test_a_program_of_the_source_is_left_alone_where_no_channel_is_free(tmp_path: Path) -> None:
    programs = b"".join(bytes([0, 0xC0 | channel, 70]) for channel in range(16))
    source, path = composed_in(tmp_path, midi(programs + scale()), (60, 0, [0, ONSET, 0, 0]))
    assert others_of(path) == [*others_of(source), [(0, meta(3, b"FractalGen"))]]


@pytest.mark.parametrize(("quarter", "written"), [(1, 4), (2, 4), (90, 180), (480, 480), (8191, 32_764), (9001, 9001)])
def test_a_step_that_is_no_whole_number_of_ticks(tmp_path: Path, quarter: int, written: int) -> None:
    content = midi(tempo(0, 600_000) + tempo(2 * quarter, 300_000), scale(ticks=quarter), division=quarter)
    source, path = composed_in(tmp_path, content, (80, 0, [0, ONSET, HOLD]))
    assert int.from_bytes(path.read_bytes()[12:14], "big") == written
    assert read(path).seconds == read(source).seconds == pytest.approx(2 * 0.6 + 6 * 0.3)


def goes_on(source: Path, path: Path, held: tuple[int, ...] = ()) -> PianoRoll:
    """Two bars of 4/4 of a file, with as much silence in which keys that are ``held`` sound four steps more."""
    roll = PianoRoll.from_events(read_midi(source))
    task = continuation(roll, 8, 8)
    tokens = np.maximum(task.known[:, :16], 0).astype(np.uint8)
    tokens[list(held), 8:12] = HOLD
    result = PianoRoll(tokens, tempos=roll.tempos[:1], time_signatures=roll.time_signatures[:1])
    splice_midi(source, result, task.composed, path, cut=8)
    assert PianoRoll.from_events(read_midi(path)) == result
    return result


def test_notes_never_ended_are_not_lengthened_by_others_that_are(tmp_path: Path) -> None:
    source = tmp_path / "a.mid"
    source.write_bytes(midi(on(0, 60) + on(0, 62) + on(480, 64) + off(960, 59)))
    goes_on(source, tmp_path / "b.mid", held=(62,))


def test_from_the_cut_on_only_the_music_composed_goes_on(tmp_path: Path) -> None:
    source, path = tmp_path / "a.mid", tmp_path / "b.mid"
    pedal = bytes([0, 0xB0, 64, 127])
    drums = b"".join(on(0, 36, channel=9) + off(240, 36, channel=9) for _ in range(8))
    conductor = tempo(0, 400_000) + meter(0, 3, 2) + tempo(1200, 800_000) + meter(0, 5, 2)
    source.write_bytes(midi(conductor, pedal + scale(4), drums))
    assert goes_on(source, path).seconds == pytest.approx(1.6)
    assert {note[2:4] for note in notes_of(path) if note[1] == DRUMS} == {(240 * i, 240 * i + 240) for i in range(4)}
    moves = [(tick, data) for tick, data in events_of(path)[1][1] if data[0] == 0xB0]
    assert moves == [(0, pedal[1:]), (960, bytes([0xB0, 64, 0]))]


def test_one_track_is_the_voice(tmp_path: Path) -> None:
    source, path = tmp_path / "a.mid", tmp_path / "b.mid"
    name = b"\x00" + meta(3, b"Melody")
    flute = name + on(13, 72, 50, channel=2) + off(947, 72, channel=2)
    other = on(0, 72, 99) + off(1920, 72) + on(0, 48) + off(480, 48)
    source.write_bytes(midi(other, flute, on(0, 36, channel=9) + off(240, 36, channel=9)))
    tracks, _ = find_tracks(source, "melody")
    roll = PianoRoll.from_events(read_midi(source, tracks=tracks))
    assert roll.notes().tolist() == [(72, 0, 8, 12)]
    assert roll.width == 32  # that of the whole piece
    task = accompaniment(roll, "all", "below")
    tokens = np.maximum(task.known[:, : roll.width], 0).astype(np.uint8)
    tokens[40, 2:4] = [ONSET, HOLD]
    splice_midi(source, replace(roll, tokens=tokens), task.composed, path, tracks=tracks)
    assert notes_of(path) == Counter([(1, 2, 13, 960, 72, 50), (2, 9, 0, 240, 36, 66), (3, 1, 240, 480, 40, 2)])
    assert np.array_equal(read(path).tokens, tokens)


def test_one_track_is_the_voice_in_some_bars(tmp_path: Path) -> None:
    source, path = tmp_path / "a.mid", tmp_path / "b.mid"
    high = b"".join(on(13 if i == 0 else 0, 72, 50 + i, channel=2) + off(480, 72, channel=2) for i in range(12))
    low = b"".join(on(0, pitch, 80) + off(960, pitch) for pitch in (40, 72, 80, 43, 74, 45))
    source.write_bytes(midi(low, high))
    tracks, _ = find_tracks(source, "1")
    within = time_span(read(source), 16, 32)
    voice, roll = (PianoRoll.from_events(read_midi(source, tracks=tracks, within=bars)) for bars in (None, within[0]))
    task = accompaniment(roll, voice, "below", within=within)
    assert np.array_equal(task.known[:, :16], read(source).tokens[:, :16])
    tokens = np.maximum(task.known[:, : roll.width], 0).astype(np.uint8)
    tokens[50, 18] = ONSET
    result = replace(roll, tokens=tokens)
    splice_midi(source, result, task.composed, path, tracks=tracks, within=within[0])
    assert read(path) == result
    gone = {(0, 0, 1920, 2880, 80, 80), (0, 0, 2880, 3840, 43, 80)}
    assert notes_of(path) == notes_of(source) - Counter(gone) + Counter([(2, 1, 2160, 2280, 50, 2)])


def test_a_status_that_runs_on_after_a_text_and_notes_ended_by_velocity_0(tmp_path: Path) -> None:
    running = on(0, 60) + b"\x00" + meta(1, b"la") + bytes([120, 64, 66]) + bytes([*delta(480), 60, 0, 0, 64, 0])
    source, path = composed_in(tmp_path, midi(running, kind=0))
    assert read(source).notes().tolist() == [(60, 0, 5, 16), (64, 1, 4, 16)]
    assert notes_of(path) == notes_of(source)


ODD = {
    "clock": b"\xf8",
    "time code": b"\xf1\x05",
    "song position": b"\xf2\x05\x06",
    "system exclusive": b"\xf0\x02\x01\xf7",
    "impossible key": b"\xff\x59\x02\x09\x09",
    "aftertouch": b"\xd0\x09",
    "sequencer specific": b"\xff\x7f\x03\x43\x00\xff",
    "short meter": b"\xff\x58\x02\x04\x02",
    "lyric in Shift JIS": b"\xff\x05\x02\x89\xcc",
    "name of a program": meta(8, b"Piano"),
    "unknown kind": meta(0x4B, b"\xff\x00"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_events_stay_byte_for_byte_at_their_time(tmp_path: Path, odd: bytes) -> None:
    content = midi(on(0, 60) + delta(120) + odd + off(360, 60)).replace(b"MTrk", b"XFIH\x00\x00\x00\x02okMTrk")
    _, path = composed_in(tmp_path, content)
    assert others_of(path)[0] == [(120, odd)]
    assert notes_of(path) == Counter([(0, 0, 0, 480, 60, 66)])


def test_a_track_that_does_not_say_its_end(tmp_path: Path) -> None:
    whole = midi(on(0, 60) + off(480, 60))
    content = whole[:18] + (len(whole) - 22 - len(END)).to_bytes(4, "big") + whole[22 : -len(END)]
    _, path = composed_in(tmp_path, content)
    assert statuses(path) == [0x90, 0x80, 0xFF]


def test_what_was_held_before_a_roll_of_ours_is_still_held(tmp_path: Path) -> None:
    source, path = tmp_path / "a.mid", tmp_path / "b.mid"
    tokens = np.zeros((128, 16), np.uint8)
    tokens[60, :4] = HOLD
    tokens[64, 2:5] = [ONSET + 9, HOLD, HOLD]
    PianoRoll(tokens[:, :12]).to_midi(source)
    splice_midi(source, PianoRoll(tokens), np.broadcast_to(np.arange(16) >= 8, tokens.shape), path)
    assert read(path) == PianoRoll(tokens)
    assert path.read_bytes().count(b"FractalGen end of roll") == 1


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    source, path = tmp_path / "a.mid", tmp_path / "folder.mid"
    source.write_bytes(midi(scale()))
    path.mkdir()
    roll = read(source)
    nothing = np.zeros(roll.tokens.shape, np.bool_)
    with pytest.raises(ValueError, match="composed"):
        splice_midi(source, roll, nothing[:, :3], path)
    with pytest.raises(UserError, match="cannot be read"):
        splice_midi(tmp_path / "no.mid", roll, nothing, path)
    with pytest.raises(UserError, match="cannot be written"):
        splice_midi(source, roll, nothing, path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mid", "folder.mid"]


@pytest.mark.parametrize(
    ("content", "steps", "reason"),
    [
        (midi(scale(ticks=71), division=71), 480, "71 ticks a quarter note are too few for 480 time steps"),
        (midi(scale(ticks=1), tempo((1 << 28) - 1, 500_000), division=1), 4, "too long to be edited"),
    ],
)
def test_ticks_that_cannot_be_divided_are_refused(tmp_path: Path, content: bytes, steps: int, reason: str) -> None:
    source = tmp_path / "a.mid"
    source.write_bytes(content)
    roll = PianoRoll.from_midi(source, steps)
    with pytest.raises(UserError, match=reason):
        splice_midi(source, roll, np.zeros(roll.tokens.shape, np.bool_), tmp_path / "b.mid")
