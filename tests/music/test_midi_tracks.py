"""Tracks chosen by name, number or General MIDI program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fractalgen.errors import UserError
from fractalgen.music.midi import read_midi
from fractalgen.music.midi_events import read_file
from fractalgen.music.midi_tracks import chosen, find_tracks, played_tracks, tracks_meant
from tests.midi_files import delta, meta, midi, off, on, scale


def name(text: str) -> bytes:
    return b"\x00" + meta(3, text.encode())


def program(number: int, channel: int = 0, wait: int = 0) -> bytes:
    return delta(wait) + bytes([0xC0 | channel, number])


BAND = midi(
    name("tempo"),
    name("MELODY") + program(73, 1) + on(0, 72, channel=1) + off(480, 72, channel=1),
    name("Bridge") + program(40, 2) + program(56, 2) + on(0, 67, channel=2) + off(480, 67, channel=2),
    name("PIANO 1") + scale(4, first=60) + program(19),  # an organ only later
    name("drums") + on(0, 36, channel=9) + off(480, 36, channel=9),
    name("Piano 2") + on(0, 48, channel=3) + off(480, 48, channel=3),
    program(33, 3),  # for the track before
)


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["melody"], [0]),
        (["melody", " BRIDGE ", "0"], [0, 1]),
        (["piano"], []),
        (["piano *"], [2, 4]),
        (["*"], [0, 1, 2, 4]),
        (["p.ano*"], []),
        (["2", "3", "9"], [2]),  # 3 is drums
        (["program:73"], [0]),
        (["program:0-7"], [2]),
        (["Program:32-56"], [1, 4]),
        (["program:40"], []),
        (["program:19"], []),
        ([""], []),
    ],
)
def test_words_choose_tracks(tmp_path: Path, words: list[str], numbers: list[int]) -> None:
    path = tmp_path / "band.mid"
    path.write_bytes(BAND)
    tracks = played_tracks(read_file(path))
    assert [track.number for track in chosen(tracks, words)] == numbers
    if numbers:
        found = read_midi(path, tracks=tracks_meant(path, words))
        pitches = {0: {72}, 1: {67}, 2: {60, 61, 62, 63}, 4: {48}}
        assert set(found.pitch.tolist()) == set().union(*(pitches[number] for number in numbers))
        assert found.width == 16
    else:
        with pytest.raises(UserError, match=r"means none of its tracks 0 'MELODY' \(program 73, 1 notes\), 1 'Bridge'"):
            tracks_meant(path, words)


@pytest.mark.parametrize("word", ["program:", "program:128", "program:7-0", "program:1-", "program:-1", "program:1 2"])
def test_impossible_programs_are_refused(word: str) -> None:
    with pytest.raises(UserError, match=rf"^--tracks {word}: not program:A or program:A-B with numbers from 0 to 127$"):
        chosen([], [word])


def test_channels_of_a_type_0_file_are_tracks(tmp_path: Path) -> None:
    path = tmp_path / "one.mid"
    bass = program(32, 5) + on(0, 40, channel=5) + off(480, 40, channel=5)
    path.write_bytes(midi(name("all") + on(0, 60) + off(480, 60) + bass, kind=0))
    assert [(track.part, track.program) for track in played_tracks(read_file(path))] == [((0, 0), 0), ((0, 5), 32)]
    assert read_midi(path, tracks=tracks_meant(path, ["program:32-39"])).pitch.tolist() == [40]
    assert read_midi(path, tracks=tracks_meant(path, ["all"])).pitch.tolist() == [60, 40]
    assert tracks_meant(path, ()) is None


def test_what_is_told_of_a_file_is_told_of_its_chosen_tracks(tmp_path: Path) -> None:
    """Pedals and notes that never end are those of the chosen tracks."""
    path = tmp_path / "held.mid"
    pedal = b"\x00\xb0\x40\x7f" + on(0, 60) + off(480, 60) + delta(480) + b"\xb0\x40\x00"
    path.write_bytes(midi(name("held") + pedal, name("plain") + on(0, 70, channel=1) + off(480, 70, channel=1)))
    assert read_midi(path, tracks=tracks_meant(path, ["held"])).pedalled == 1
    plain = read_midi(path, tracks=tracks_meant(path, ["plain"]))
    assert plain.pedalled == 0
    assert np.array_equal(plain.end, [4])


def test_the_track_of_a_voice(tmp_path: Path) -> None:
    path = tmp_path / "band.mid"
    path.write_bytes(BAND)
    for wanted in ("melody", "0"):
        assert find_tracks(path, wanted) == (((1, 1),), "0 'MELODY' (program 73, 1 notes)")
    for wanted in ("3", "7", "-1", "", "bass"):  # 3 is drums
        with pytest.raises(
            UserError, match=rf"^--voice track:{wanted}: .* has the tracks 0 'MELODY' \(program 73, 1 n"
        ):
            find_tracks(path, wanted)
