"""Chords, form, meter, lead sheets and hands on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen import cli
from fractalgen.compose.composition import with_defaults
from fractalgen.config import GenerateConfig
from fractalgen.music.chords import spelled
from fractalgen.music.labels import KEYS, Attribute
from fractalgen.music.midi_events import read_file
from fractalgen.music.midi_parser import decode
from fractalgen.music.midi_writer import text_event
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import ONSET
from fractalgen.trace import Trace
from tests import tiny
from tests.midi_files import meter, midi, off, on

ErrorLine = Callable[..., str]
METERS = Attribute("meter", ("4/4", "3/4"))


def save_model(path: Path, plan_width: int = 8) -> str:
    config = replace(
        tiny.model_config(), future_context=True, plan_width=plan_width, attributes=(Attribute("key", KEYS), METERS)
    )
    return tiny.save_model(path, config)


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("model") / "planner.safetensors")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("model") / "plain.safetensors", plan_width=0)


def compose(checkpoint: str, folder: Path, *flags: object) -> tuple[Path, Trace]:
    """The MIDI file of one piece, and its trace."""
    head = ["generate", "--checkpoint", checkpoint, "--output_dir", folder, "--seed", 1, "--save_trace", "--overwrite"]
    assert cli.main([str(argument) for argument in [*head, *flags]]) == 0
    mode = flags[flags.index("--mode") + 1] if "--mode" in flags else "unconditional"
    return folder / f"{mode}_000.mid", Trace.load(folder / f"{mode}_000.trace.npz")


def chords_of(trace: Trace) -> list[str]:
    """The chord of each beat of the plan."""
    assert trace.plan is not None
    return [spelled(int(code)) for code in trace.plan.chords]


def marker_texts(path: Path) -> list[str]:
    texts = [decode(content) for _, content in read_file(path).meta(0x06)]
    return [text for text in texts if not text.startswith("FractalGen")]


@pytest.mark.slow
def test_chords_and_form_come_out_as_markers_and_in_the_trace(planner: str, tmp_path: Path) -> None:
    flags = ("--chords", "C G/B | Am F", "--form", "A2 B2 A2", "--key", "C major")
    path, trace = compose(planner, tmp_path, *flags)
    chords = ["C", "G/B", "Am", "F"]
    assert marker_texts(path) == ["[A]", *chords, "[B]", *chords, "[A]", *chords]
    assert trace.width == 6 * 16
    assert trace.plan is not None
    assert trace.plan.returns.tolist() == [-1, -1, -1, -1, 0, 1]
    assert trace.plan.left.tolist() == [16, 16, 4, 3, 2, 1]
    assert chords_of(trace)[:8:2] == chords
    assert trace.frames("hierarchical")[0].level_name == "Plan"
    assert [span.text for span in trace.lane if span.row == 0] == ["A", "B", "A"]
    again, _ = compose(planner, tmp_path / "again", *flags)
    assert again.read_bytes() == path.read_bytes()


def test_what_is_not_given_is_drawn(planner: str, tmp_path: Path) -> None:
    path, trace = compose(planner, tmp_path, "--chords", "C ? F ?", "--bars", 4)
    assert trace.plan is not None
    assert (trace.plan.returns > -2).all()
    assert chords_of(trace)[::8] == ["C", "F"]
    assert all(chords_of(trace))
    assert len(marker_texts(path)) >= 3


def test_a_waltz_has_bars_of_twelve_steps(planner: str, tmp_path: Path) -> None:
    path, trace = compose(
        planner, tmp_path, "--meter", "3/4", "--bars", 5, "--chords", "Am E7", "--save_gif", "--save_html"
    )
    roll = PianoRoll.from_midi(path)
    assert roll.width == 60
    assert roll.time_signatures == ((0, 3, 4),)
    assert trace.width == 80
    assert trace.bars == (0, 12, 24, 36, 48)
    assert np.array_equal(trace.roll.tokens, roll.tokens)
    assert trace.settings["meter"] == "3/4"
    for view in ("process", "hierarchical", "levels", "density"):
        frame = trace.frames(view)[-1]
        assert frame.output.shape == (128, 60)
    assert (tmp_path / "unconditional_000_process.gif").is_file()


def lead_sheet(path: Path, *, marked: bool = True, name: bytes = b"Melody") -> Path:
    """Four bars of 3/4: a melody, a bass of its own, and a chord a bar as a marker."""
    melody = b"".join(on(0, 72 + i % 5, 70) + off(480, 72 + i % 5) for i in range(12))
    bass = b"".join(on(0, 40 + i % 3, 50, 1) + off(1440, 40 + i % 3, 1) for i in range(4))
    title = text_event(0x03, name.decode())
    marks = b""
    if marked:
        for number, chord in enumerate(("C", "A:min", "F", "G7")):
            marks += bytes([0]) if number == 0 else b"\x8b\x20"  # 1440 ticks
            marks += text_event(0x06, chord)
    path.write_bytes(midi(meter(0, 3, 2) + marks, bytes([0]) + title + melody, bass))
    return path


def test_a_lead_sheet_gets_its_piano_part(planner: str, tmp_path: Path) -> None:
    sheet = lead_sheet(tmp_path / "sheet.mid")
    path, trace = compose(planner, tmp_path, "--mode", "accompany", "--lead_sheet", sheet)
    given, piece = PianoRoll.from_midi(sheet), PianoRoll.from_midi(path)
    assert piece.width == given.width == 48
    melody = given.tokens[60:]
    assert np.array_equal(np.where(melody > 0, piece.tokens[60:], 0), melody)
    assert chords_of(trace)[::4] == ["C", "Am", "F", "G7"]
    assert marker_texts(path) == ["C", "A:min", "F", "G7"]  # its own
    assert (piece.tokens[:60] >= ONSET).any()


@pytest.mark.slow
def test_block_chords_of_a_lead_sheet_are_no_melody(planner: str, tmp_path: Path) -> None:
    """One track named as a melody holds held chords too; a recipe leaves another sheet free to be given."""
    melody = b"".join(on(0, 72 + i, 70) + off(480, 72 + i) for i in range(4))
    path = tmp_path / "sheet.mid"
    marks = bytes([0]) + text_event(0x06, "C:maj")
    notes = b"".join(on(0, pitch, 50) for pitch in (48, 52, 55)) + melody + b"".join(off(0, p) for p in (48, 52, 55))
    path.write_bytes(midi(meter(0, 4, 2) + marks, bytes([0]) + text_event(0x03, "melody") + notes))
    made, trace = compose(planner, tmp_path / "a", "--mode", "accompany", "--lead_sheet", path)
    piece = PianoRoll.from_midi(made)
    assert [piece.tokens[72 + i, 4 * i] >= ONSET for i in range(4)] == [True] * 4
    assert (~trace.strip(trace.known))[48:56].all()  # the chord is composed anew
    flags = ("--mode", "accompany", "--like", made, "--lead_sheet", lead_sheet(tmp_path / "other.mid"))
    again, _ = compose(planner, tmp_path / "b", *flags)
    assert PianoRoll.from_midi(again).width == 48


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"mode": "accompany", "lead_sheet": "sheet.mid"}, (4.0, "0.6", None)),
        ({"mode": "accompany", "input_midi": "tune.mid", "chords": "C G"}, (4.0, "0.6", None)),
        ({"mode": "accompany", "lead_sheet": "sheet.mid", "cfg": 1.0, "density": "0.1"}, (1.0, "0.1", None)),
        ({"mode": "accompany", "input_midi": "tune.mid"}, (2.0, None, None)),
        ({"chords": "C G"}, (2.0, None, None)),
    ],
)
def test_guidance_and_labels_that_nobody_asked_for(
    flags: dict[str, Any], expected: tuple[float, str | None, str | None]
) -> None:
    config = replace(
        tiny.model_config(), plan_width=8, attributes=(Attribute("density", edges=(1.0, 9.0), ranks=(0.0, 1.0)),)
    )
    found = with_defaults(GenerateConfig(**flags), config)
    assert (found.cfg, found.density, found.polyphony) == expected  # this model knows no polyphony


def test_defaults_are_told_from_wishes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edges = {"edges": (1.0, 5.0, 9.0), "ranks": (0.0, 0.5, 1.0), "unit": "notes"}
    attributes = tuple(Attribute(name, **edges) for name in ("density", "polyphony"))  # type: ignore[arg-type]
    config = replace(tiny.model_config(), future_context=True, plan_width=8, attributes=attributes)
    model = tiny.save_model(tmp_path / "model.safetensors", config)
    sheet = lead_sheet(tmp_path / "sheet.mid")
    compose(model, tmp_path, "--mode", "accompany", "--lead_sheet", sheet, "--density", 0.2, "--compose_bars", 1)
    printed = capsys.readouterr().out
    assert "density: 1 to 5 notes (asked for: 0.2)" in printed
    assert "polyphony: 5 to 9 notes (default under given chords)" in printed


def test_an_introduction_has_chords_and_no_melody(planner: str, tmp_path: Path) -> None:
    notes = b"".join(on(0, pitch, 50) for pitch in (36, 48, 52, 55))
    notes += b"".join(off(1920 if pitch == 36 else 0, pitch) for pitch in (36, 48, 52, 55))
    path = tmp_path / "introduction.mid"
    path.write_bytes(midi(meter(0, 4, 2) + bytes([0]) + text_event(0x06, "C:maj"), notes))
    _, trace = compose(planner, tmp_path, "--mode", "accompany", "--lead_sheet", path)
    assert not trace.strip(trace.known).any()
    assert chords_of(trace) == ["C"] * 4


@pytest.mark.slow
def test_the_program_reads_its_own_markers(planner: str, tmp_path: Path) -> None:
    _, longer = compose(planner, tmp_path / "b", "--chords", "C C C G Am F")
    assert longer.roll.width == 96
    path, _ = compose(planner, tmp_path / "a", "--chords", "C C C G", "--form", "A2 B2")
    flags = ("--mode", "accompany", "--lead_sheet", path, "--voice", "right")
    _, trace = compose(planner, tmp_path / "b", *flags)
    assert chords_of(trace)[::4] == ["C", "C", "C", "G"]


@pytest.mark.slow
def test_the_key_of_given_chords(planner: str, tmp_path: Path) -> None:
    for chords, key in (("C G Am F", "C major"), ("Am Dm E7 Am", "A minor"), ("Eb Bb Cm Ab", "Eb major")):
        _, trace = compose(planner, tmp_path, "--chords", chords, "--bars", 4)
        assert trace.settings["key"] == key


@pytest.mark.slow
def test_pieces_end_on_the_tonic_unless_told_otherwise(planner: str, tmp_path: Path) -> None:
    for flags, last in ((("--key", "D minor"), "Dm"), (("--key", "D minor", "--chords", "C G"), "G")):
        _, trace = compose(planner, tmp_path, "--bars", 4, *flags)
        assert chords_of(trace)[-4:] == [last] * 4
    head = ["generate", "--checkpoint", planner, "--output_dir", tmp_path / "two", "--seed", 1, "--save_trace"]
    assert cli.main([str(argument) for argument in [*head, "--bars", 2, "--num_samples", 2]]) == 0
    for number in (0, 1):
        trace = Trace.load(tmp_path / "two" / f"unconditional_{number:03d}.trace.npz")
        chord = chords_of(trace)[-1]
        assert trace.settings["key"] == chord.replace("m", "") + (" minor" if "m" in chord else " major")


@pytest.mark.slow
def test_a_piece_with_a_pickup_goes_on_to_the_end_of_a_form(planner: str, tmp_path: Path) -> None:
    path = tmp_path / "pickup.mid"
    notes = b"".join(on(0, 60 + i % 5, 70) + off(480, 60 + i % 5) for i in range(9))
    path.write_bytes(midi(meter(0, 1, 2) + meter(480, 4, 2), notes))
    for bars, width in ((2, 20), (1, 4)):
        flags = ("--mode", "conditional", "--condition_midi", path, "--condition_bars", bars, "--form", "A2 B3")
        made, trace = compose(planner, tmp_path / str(bars), *flags)
        assert trace.layout.lengths.tolist() == [4, 16, 16, 16, 16]
        assert PianoRoll.from_midi(made).time_signatures == ((0, 1, 4), (4, 4, 4))
        assert trace.known.any(0).sum() == width


def test_chords_of_bars_that_stay_are_not_looked_at(planner: str, tmp_path: Path) -> None:
    """The last bar is too short for two chords, but it is given."""
    path = tmp_path / "short.mid"
    notes = b"".join(on(0, 60 + i % 5, 70) + off(480, 60 + i % 5) for i in range(8)) + on(0, 60, 60) + off(240, 60)
    path.write_bytes(midi(meter(0, 4, 2) + meter(8 * 480, 1, 3), notes))
    flags = ("--input_midi", path, "--compose_bars", "2", "--chords", "C G |")
    made, _ = compose(planner, tmp_path / "out", "--mode", "inpainting", *flags)
    assert marker_texts(made) == ["C", "G"]


def test_a_column_shorter_than_a_patch_can_be_watched(planner: str, tmp_path: Path) -> None:
    compose(planner, tmp_path, "--bars", 0.5, "--save_gif", "true", "--gif_view", "levels")
    assert (tmp_path / "unconditional_000_process.gif").is_file()


def test_chords_of_a_text_file_under_a_melody(planner: str, tmp_path: Path) -> None:
    melody = lead_sheet(tmp_path / "melody.mid", marked=False)
    chords = tmp_path / "chords.txt"
    chords.write_text("C | Am\nF | G7\n")
    flags = ("--mode", "accompany", "--lead_sheet", chords, "--input_midi", melody, "--voice", "track:Melody")
    path, trace = compose(planner, tmp_path, *flags)
    assert chords_of(trace)[::4] == ["C", "Am", "F", "G7"]
    assert marker_texts(path)[:1] == ["C"]


@pytest.mark.parametrize("voice", ["melody", "right", "left"])
def test_voices_by_name_and_by_hand(planner: str, tmp_path: Path, voice: str) -> None:
    sheet = lead_sheet(tmp_path / "sheet.mid")
    side = "above" if voice == "left" else "below"
    path, _ = compose(planner, tmp_path, "--mode", "accompany", "--input_midi", sheet, "--voice", voice, "--side", side)
    given, piece = PianoRoll.from_midi(sheet), PianoRoll.from_midi(path)
    kept = slice(0, 60) if voice == "left" else slice(60, 128)
    part = given.tokens[kept]
    assert np.array_equal(np.where(part > 0, piece.tokens[kept], 0), part)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.slow
def test_hands_are_two_tracks(planner: str, tmp_path: Path, given: bool) -> None:
    flags: tuple[object, ...] = ("--bars", 2)
    if given:
        flags = ("--mode", "conditional", "--condition_midi", lead_sheet(tmp_path / "sheet.mid"), "--bars", 2)
    plain_path, _ = compose(planner, tmp_path / "one", *flags)
    path, _ = compose(planner, tmp_path / "two", *flags, "--hands", "true")
    assert np.array_equal(PianoRoll.from_midi(path).tokens, PianoRoll.from_midi(plain_path).tokens)
    file = read_file(path)
    names = [file.name(number).casefold() for number in range(len(file.columns))]
    assert sum("right hand" in name for name in names) == sum("left hand" in name for name in names) == 1


def test_a_piece_goes_on_under_chords(planner: str, tmp_path: Path) -> None:
    sheet = lead_sheet(tmp_path / "sheet.mid")
    flags = ("--mode", "conditional", "--condition_midi", sheet, "--bars", 3, "--chords", "Dm G7 C")
    path, trace = compose(planner, tmp_path, *flags)
    assert chords_of(trace)[16::4] == ["Dm", "G7", "C"]
    assert PianoRoll.from_midi(path).width == 48 + 36
    assert [text for text in marker_texts(path) if text[0] != "["][-3:] == ["Dm", "G7", "C"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--chords CxG", "--chords: position 1: 'CxG' is no chord"),
        ("--chords C|G|Hm7", "--chords: position 5: 'Hm7' is no chord"),
        ("--chords C|G|F --bars 2", "--chords: 3 bars of chords, the piece has 2 bars to compose"),
        ("--mode inpainting --input_midi SHEET --compose_bars 2-3 --chords C|F|G", "the piece has 2 bars to compose"),
        ("--form " + "A999" * 5, "--form: 4995 bars are 79920 time steps; a piece has 1 to 65535"),
        ("--form A8_A8", "--form: '_A8' at position 3 is no section"),
        ("--form A2,B2 --bars 5", "--form A2,B2: 4 bars in all, --bars 5 asked for"),
        ("--meter 5/4", "--meter 5/4: not in this model's vocabulary (4/4, 3/4)"),
        ("--meter waltz", "--meter 'waltz': write it as 4/4, 3/4, 6/8"),
        ("--mode accompany --lead_sheet UNMARKED", "UNMARKED: no chord in it"),
        ("--mode accompany --lead_sheet UNNAMED", "UNNAMED: which track is the melody?"),
        ("--mode accompany --lead_sheet chords.txt", "chords.txt: holds chords alone; --input_midi is needed"),
        ("--mode accompany --lead_sheet SHEET --chords C", "give only one of them"),
        ("--lead_sheet SHEET", "--lead_sheet SHEET: belongs to --mode accompany"),
        ("--mode accompany --input_midi SHEET --meter 3/4", "--meter 3/4: in --mode accompany the given music sets"),
    ],
)
def test_mistakes_are_one_line(
    planner: str, tmp_path: Path, one_error_line: ErrorLine, flags: str, expected: str
) -> None:
    files = {
        "SHEET": lead_sheet(tmp_path / "sheet.mid"),
        "UNMARKED": lead_sheet(tmp_path / "unmarked.mid", marked=False),
        "UNNAMED": lead_sheet(tmp_path / "unnamed.mid", name=b"Flute"),
    }
    folder = tmp_path / "out"
    arguments = [str(files.get(flag, flag)) for flag in flags.split()]
    line = one_error_line("generate", "--checkpoint", planner, "--output_dir", folder, *arguments)
    for name, path in files.items():
        expected = expected.replace(name, str(path))
    assert expected in line
    assert not folder.exists()


def test_a_model_without_plans_says_so(plain: str, tmp_path: Path, one_error_line: ErrorLine) -> None:
    for flag, value in (("--chords", "C"), ("--form", "A2")):
        line = one_error_line("generate", "--checkpoint", plain, "--output_dir", tmp_path / "out", flag, value)
        assert f"{flag} {value}: plain" in line
        assert "was trained without plans" in line
