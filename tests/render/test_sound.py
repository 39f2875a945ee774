"""Sound: what is heard is what the roll says, at its seconds, its pitches and its loudness."""

from __future__ import annotations

import json
import struct
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from fractalgen.errors import UserError
from fractalgen.music import MAX_STEPS
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import HOLD, ONSET
from fractalgen.render.sound import (
    BLOCK,
    CEILING,
    PIANO,
    RATE,
    RELEASE,
    TAIL,
    _limit,
    _spectrum,
    check_soundfont,
    save_wav,
    synthesise,
)

LOUD = 31  # the highest velocity bin; 120 quarters a minute make a step of 0.125 s


def roll(*notes: tuple[int, int, int, int], width: int = 16, **settings: Any) -> PianoRoll:
    """A roll of (pitch, start, duration, velocity bin)."""
    tokens = np.zeros((128, width), np.uint8)
    for pitch, start, duration, velocity in notes:
        tokens[pitch, start : start + duration] = HOLD
        tokens[pitch, start] = ONSET + velocity
    return PianoRoll(tokens, **settings)


def mono(piece: PianoRoll, soundfont: Path | None = None) -> np.ndarray:
    return synthesise(piece, soundfont)[0].sum(axis=1)


def loudness(sound: np.ndarray, begin: float, end: float) -> float:
    """The effective value between two times in seconds."""
    return float(np.sqrt(np.square(sound[round(begin * RATE) : round(end * RATE)]).mean()))


def peak_frequency(sound: np.ndarray, begin: float, end: float, low: float = 20, high: float = 20_000) -> float:
    """The strongest frequency between two in Hz, exact to about 0.05 Hz."""
    part = sound[round(begin * RATE) : round(end * RATE)]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 20))
    first, last = (round(edge / RATE * (1 << 20)) for edge in (low, high))
    return float((first + spectrum[first:last].argmax()) * RATE / (1 << 20))


def begins(sound: np.ndarray) -> float:
    """Seconds to the first sample that is heard."""
    return float(np.flatnonzero(np.abs(sound) > 1e-4)[0] / RATE)


def soundfont(path: Path, bank: int = 0, preset: int = 0) -> Path:
    """The smallest soundfont: one preset, one instrument, and one looped sine: 441 Hz at key 69."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    def named(text: str) -> bytes:
        return text.encode().ljust(20, b"\0")

    period, periods = 100, 20
    cycle = np.sin(2 * np.pi * np.arange(period * periods) / period) * 16_000
    samples = np.r_[cycle, np.zeros(46)].astype("<i2").tobytes()  # the standard asks for 46 zeros behind each sample
    end = period * periods
    presets = [(named("Sine"), preset, bank, 0), (named("EOP"), 0, 0, 1)]
    tables = {
        b"phdr": b"".join(name + struct.pack("<HHHIII", *numbers, 0, 0, 0) for name, *numbers in presets),
        b"pbag": struct.pack("<HHHH", 0, 0, 1, 0),
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HHHH", 41, 0, 0, 0),  # instrument 0
        b"inst": named("Sine") + struct.pack("<H", 0) + named("EOI") + struct.pack("<H", 1),
        b"ibag": struct.pack("<HHHH", 0, 0, 2, 0),
        b"imod": bytes(10),
        b"igen": struct.pack("<HHHHHH", 54, 1, 53, 0, 0, 0),  # loop; sample 0
        b"shdr": named("sine")
        + struct.pack("<IIIIIBbHH46x", 0, end, period, end - period, RATE, 69, 0, 0, 1),  # and a closing record
    }
    about = {b"ifil": struct.pack("<HH", 2, 1), b"isng": b"EMU8000\0", b"INAM": b"Sine\0\0"}
    lists = {b"INFO": about, b"sdta": {b"smpl": samples}, b"pdta": tables}
    parts = (
        chunk(b"LIST", name + b"".join(chunk(*entry) for entry in entries.items())) for name, entries in lists.items()
    )
    path.write_bytes(chunk(b"RIFF", b"sfbk" + b"".join(parts)))
    return path


def test_length_is_the_rolls_seconds_and_the_tail_and_silence_is_silent() -> None:
    for piece, seconds in ((roll(width=16), 2.0), (roll(width=0), 0.0), (roll(width=16, tempos=((0, 60.0),)), 4.0)):
        sound, rate = synthesise(piece)
        assert rate == 44_100
        assert sound.dtype == np.float32
        assert sound.shape == (round((seconds + TAIL) * rate), 2)
        assert not sound.any()


def test_the_piano_is_in_tune() -> None:
    away = {}  # in cents
    for pitch in range(30, 106, 3):
        wanted = 440 * 2 ** ((pitch - 69) / 12)
        found = peak_frequency(mono(roll((pitch, 0, 16, 20))), 0.1, 2.0, wanted / 2 ** (1 / 12), wanted * 2 ** (1 / 12))
        away[pitch] = 1200 * np.log2(found / wanted)
    assert all(abs(cents) < 5 for pitch, cents in away.items() if 42 <= pitch <= 76), away
    assert all(-15 < cents < 20 for cents in away.values()), away  # octaves are wide in the bass and the treble


def test_every_key_can_be_played() -> None:
    sound = mono(roll(*((pitch, 4 * pitch, 2, 20) for pitch in range(128)), width=512))
    assert np.isfinite(sound).all()
    assert all(loudness(sound, 0.5 * pitch, 0.5 * pitch + 0.2) > 0.003 for pitch in range(128))


def test_harder_is_louder_and_brighter() -> None:
    sounds = [mono(roll((60, 0, 8, velocity))) for velocity in range(0, 32, 4)]
    assert (np.diff([loudness(sound, 0, 1) for sound in sounds]) > 0).all()
    spectra = [np.abs(np.fft.rfft(sound[:RATE])) ** 2 for sound in sounds]  # one bin is one Hz
    assert (np.diff([(spectrum * np.arange(len(spectrum))).sum() / spectrum.sum() for spectrum in spectra]) > 0).all()


def test_neighbours_are_alike() -> None:
    levels = [
        20 * np.log10(np.sqrt(np.square(synthesise(roll((pitch, 0, 4, 20)))[0][: RATE // 2]).mean()))
        for pitch in range(21, 109)
    ]
    assert np.abs(np.diff(levels)).max() < 2.5  # dB
    assert levels[0] - levels[-1] > 10  # the highest strings are short


def test_a_held_note_decays_and_high_notes_decay_faster() -> None:
    falls = []
    for pitch in (36, 60, 84):
        sound = mono(roll((pitch, 0, 16, 20)))
        levels = [loudness(sound, begin, begin + 0.5) for begin in (0, 0.5, 1, 1.5)]
        assert (np.diff(levels) < 0).all()
        falls.append(levels[-1] / levels[0])
    assert 0.05 < falls[0] < 0.3
    assert falls == sorted(falls, reverse=True)


def test_a_note_outlasts_its_recording() -> None:
    sound = mono(roll((96, 0, 96, 20), (36, 0, 96, 20), width=96))  # 12 s; recorded for 3.4 and 10.3 s
    assert np.abs(sound[round(11 * RATE) :]).max() < 1e-4
    assert loudness(sound, 8, 9) > 1e-4
    sample = json.loads((PIANO / "samples.json").read_text(encoding="utf-8"))["notes"][13]
    assert _spectrum(sample, 61, 3_600 * RATE)[1] < 9 * RATE  # an hour takes no more memory than the recording


def test_nothing_clicks() -> None:
    """A step in the sound, at a note's end or a recording's, would be larger than any of its own movement."""
    for pitch, steps in ((24, 2), (36, 80), (60, 3), (97, 40)):
        sound = mono(roll((pitch, 4, steps, LOUD), width=100))
        moves = np.abs(np.diff(sound, 2))
        begin, end = RATE // 2, RATE // 2 + round(steps / 8 * RATE)
        assert moves[begin - 100 : begin + 20].max() < 0.02  # it fades in
        assert moves[end - 5 : end + 5].max() <= moves[begin : end - 5].max()
        assert moves[end + 5 :].max() <= moves[begin:end].max()


def test_notes_begin_and_end_where_the_roll_says() -> None:
    sound = mono(roll((60, 4, 2, LOUD), (72, 12, 2, LOUD)))
    assert not sound[: RATE // 2].any()
    assert begins(sound) == pytest.approx(0.5, abs=0.002)
    ended = round((0.75 + RELEASE) * RATE)
    second = round(1.5 * RATE)
    assert loudness(sound, 0.7, 0.75) > 30 * loudness(sound, 0.95, 1.0) > 0  # the damper
    assert not sound[ended:second].any()
    assert begins(sound[second:]) < 0.002
    assert peak_frequency(sound, 1.5, 1.75) == pytest.approx(523.25, abs=1.5)
    assert not sound[round((1.75 + RELEASE) * RATE) :].any()


def test_tempo_changes_are_heard() -> None:
    tempos = ((0, 120.0), (8, 30.0))  # 8 x 1/8 s, 8 x 1/2 s
    sound = mono(roll((60, 0, 1, 20), (60, 8, 1, 20), (60, 12, 4, 20), tempos=tempos))
    assert len(sound) == round((1 + 4 + TAIL) * RATE)
    assert begins(sound[round(0.9 * RATE) :]) == pytest.approx(0.1, abs=0.002)
    assert not sound[round(2.05 * RATE) : 3 * RATE].any()
    assert begins(sound[round(2.1 * RATE) :]) == pytest.approx(0.9, abs=0.002)
    assert loudness(sound, 4.9, 5.0) > 0.001  # the last note lasts four steps: two seconds


def test_notes_shorter_than_a_sample_are_let_go() -> None:
    piece = roll((60, 0, 1, LOUD), (60, 1, 1, LOUD), (64, 3, 2, LOUD), tempos=((0, 60_000_000.0),))
    sound = mono(piece)
    assert len(sound) == TAIL * RATE
    assert sound[: RATE // 10].any()
    assert not sound[round(RELEASE * RATE) + 2 :].any()


def test_orphan_holds_sound_as_in_midi(tmp_path: Path) -> None:
    tokens = np.zeros((128, 16), np.uint8)
    tokens[60, :8] = HOLD
    orphan = PianoRoll(tokens)
    assert np.array_equal(mono(orphan), mono(roll((60, 0, 8, 16))))
    orphan.to_midi(tmp_path / "orphan.mid")
    assert np.array_equal(mono(orphan), mono(PianoRoll.from_midi(tmp_path / "orphan.mid")))


def test_notes_add_up() -> None:
    notes = [(60, 0, 4, 12), (64, 2, 9, 12), (60, 4, 12, 12), (60, 2, 2, 5), (43, 3, 5, 20)]
    together = mono(roll(*notes[:3], notes[4]))
    apart = sum(mono(roll(note)) for note in [*notes[:3], notes[4]])
    assert np.abs(together).max() > 0.05
    np.testing.assert_allclose(together, apart, atol=3e-5)  # 90 dB down: the bit that 16 can hold


def test_bass_is_left_and_treble_right() -> None:
    low, high = (np.abs(synthesise(roll((pitch, 0, 8, 20)))[0]).max(axis=0) for pitch in (24, 104))
    assert 1 < low[0] / low[1] < 3
    assert 1 < high[1] / high[0] < 3


def test_loud_chords_do_not_clip() -> None:
    chord = [(pitch, 8, 8, LOUD) for pitch in range(40, 80, 2)]
    sound, _ = synthesise(roll(*chord, (60, 0, 2, 10), width=40))
    assert 0.9 < np.abs(sound).max() <= CEILING + 1e-6
    gentle = synthesise(roll((60, 0, 2, 10), width=40))[0]
    # Far from the chord nothing is turned down.
    np.testing.assert_allclose(sound[: RATE // 4], gentle[: RATE // 4], atol=3e-5)


def test_limiter_turns_both_sides_down_smoothly() -> None:
    before = np.random.default_rng(0).uniform(-0.5, 0.5, (400 * BLOCK, 2)).astype(np.float32)
    before[200 * BLOCK : 203 * BLOCK] *= 8
    before[30, 1] = -3.0
    after = before.copy()
    _limit(after)
    assert np.abs(after).max() <= CEILING + 1e-6
    gain = after / before
    np.testing.assert_allclose(gain[:, 0], gain[:, 1], rtol=1e-4)
    assert np.abs(np.diff(gain[:, 0])).max() < 1e-3
    assert (gain <= 1 + 1e-6).all()
    assert np.array_equal(after[300 * BLOCK :], before[300 * BLOCK :])
    assert np.abs(after[200 * BLOCK : 203 * BLOCK]).max() > 0.9  # no more than needed


def test_wav_holds_the_sound_and_is_the_same_every_time(tmp_path: Path) -> None:
    piece = roll((60, 0, 8, 20), (67, 4, 8, 31))
    save_wav(piece, tmp_path / "new" / "piece.wav")
    with wave.open(str(tmp_path / "new" / "piece.wav")) as file:
        assert file.getparams()[:4] == (2, 2, RATE, round(3 * RATE))
        assert file.getcomptype() == "NONE"
        read = np.frombuffer(file.readframes(1 << 20), "<i2").reshape(-1, 2)
    np.testing.assert_allclose(read / 32_767, synthesise(piece)[0], atol=0.5001 / 32_767)
    save_wav(piece, tmp_path / "again.wav")
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "new" / "piece.wav").read_bytes()


@pytest.mark.parametrize(("folder", "channels", "distance"), [(PIANO, 2, 3), (PIANO / "small", 1, 6)])
def test_the_samples(folder: Path, channels: int, distance: int) -> None:
    table = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    assert "Alexander Holm" in table["credit"]
    assert "CC BY 3.0" in table["credit"]
    assert [note["pitch"] for note in table["notes"]] == list(range(21, 109, distance))
    assert {note["file"] for note in table["notes"]} == {path.name for path in folder.glob("*.mp3")}
    for note in table["notes"]:
        content, _ = soundfile.read(folder / note["file"], always_2d=True)
        assert content.shape[1] == channels
        assert 0.8 < np.abs(content).max() <= 1
        assert np.flatnonzero(np.abs(content) > 0.04)[0] < 200 * channels  # the attack comes at once
        assert np.abs(content[-500:]).max() < 0.003  # it has died away


def test_the_samples_are_small() -> None:
    small, full = (sum(path.stat().st_size for path in at.glob("*.mp3")) for at in (PIANO / "small", PIANO))
    assert small < 300_000 < small + full < 3_000_000


def test_hours_are_refused() -> None:
    with pytest.raises(UserError, match=r"the piece lasts 131,070 s; .* 3,600 s at most"):
        synthesise(roll(width=MAX_STEPS, tempos=((0, 7.5),)))  # two seconds a step


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "no soundfont (it does not begin with RIFF and sfbk)"),
        (b"RIFF\x04\0\0\0WAVE", "no soundfont (it does not begin with RIFF and sfbk)"),
        (b"RIFF\x04\0\0\0sfbk", "damaged soundfont (without INFO, sdta, pdta)"),
        (b"RIFF\x10\0\0\0sfbkLIST\x04\0\0\0INFO", "damaged soundfont (without sdta, pdta)"),
        (b"RIFF\xff\0\0\0sfbkLIST", "truncated (its header says 263 bytes, the file has 16)"),
    ],
)
def test_bad_soundfonts_are_refused(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "font.sf2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        save_wav(roll((60, 0, 8, 20)), tmp_path / "out.wav", path)
    assert str(error.value) == f"--soundfont {path}: {reason}"
    assert not (tmp_path / "out.wav").exists()


def test_the_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)  # how Python marks a module that cannot be imported
    with pytest.raises(UserError, match=r"--soundfont.*needs the library tinysoundfont \(pip install"):
        check_soundfont(soundfont(tmp_path / "sine.sf2"))


@pytest.mark.parametrize(("bank", "preset"), [(0, 0), (0, 5), (3, 1)])
def test_a_soundfont_plays(bank: int, preset: int, tmp_path: Path) -> None:
    pytest.importorskip("tinysoundfont")
    font = soundfont(tmp_path / "sine.sf2", bank, preset)
    check_soundfont(font)
    piece = roll((69, 4, 4, 20), (57, 12, 4, 20), width=20)
    sound = mono(piece, font)
    assert len(sound) == round((2.5 + TAIL) * RATE)
    assert begins(sound) == pytest.approx(0.5, abs=0.003)
    assert peak_frequency(sound, 0.5, 1.0) == pytest.approx(441, abs=0.5)
    assert peak_frequency(sound, 1.5, 2.0) == pytest.approx(220.5, abs=0.5)
    assert loudness(sound, 1.2, 1.5) < 1e-3 < 1e-2 < loudness(sound, 1.6, 2.0)
    assert loudness(sound, 2.3, 3.5) < 1e-3


def test_soundfont_notes_struck_again_go_on_and_velocity_counts(tmp_path: Path) -> None:
    pytest.importorskip("tinysoundfont")
    font = soundfont(tmp_path / "sine.sf2")
    again = mono(roll((69, 0, 4, 20), (69, 4, 8, 20)), font)
    assert loudness(again, 1.2, 1.4) > 0.02
    soft, loud = (loudness(mono(roll((69, 0, 8, velocity)), font), 0.2, 0.8) for velocity in (8, 31))
    assert loud > 2 * soft > 0
    many = [(pitch, 0, 8, LOUD) for pitch in range(20, 100)]
    assert 0.9 < np.abs(synthesise(roll(*many), font)[0]).max() <= 1
