"""Every mode of ``fractalgen generate`` on a tiny random model: what is given stays, the rest responds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen import PianoRoll, Trace
from fractalgen.music.midi_events import read_file
from fractalgen.music.midi_parser import DRUMS
from fractalgen.music.tokens import ONSET, SILENCE
from tests import tiny
from tests.compose import test_plan
from tests.midi_files import meter, midi, off, on, scale, tempo

ErrorLine = Callable[..., str]
BAR = 480 * 4


def save_model(path: Path, **changes: Any) -> str:
    return tiny.save_model(path, replace(tiny.model_config(), **changes))


@pytest.fixture(scope="module")
def both_sides(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("model") / "both_sides.safetensors", future_context=True)


@pytest.fixture(scope="module")
def past_only(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("model") / "past_only.safetensors")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four bars in 3/4 and 4/4, a melody and a bass track, played a little late, with two tempi."""
    melody = b"".join(on(13 if i == 0 else 0, 72 + i % 5, 70 + i) + off(240, 72 + i % 5) for i in range(24))
    bass = b"".join(on(7 if i == 0 else 0, 40 + i % 3, 50, 1) + off(960, 40 + i % 3, 1) for i in range(6))
    head = tempo(0, 600_000) + meter(0, 3, 2) + meter(3 * 480, 4, 2) + tempo(960, 450_000)
    path = tmp_path_factory.mktemp("midi") / "song.mid"
    path.write_bytes(midi(head, melody, bass))
    return path


def compose(checkpoint: str, folder: Path, *flags: object) -> tuple[PianoRoll, Trace]:
    """One piece and its trace."""
    path, trace = test_plan.compose(checkpoint, folder, *flags)
    return PianoRoll.from_midi(path), trace


def test_conditional_goes_on_after_the_beginning(both_sides: str, source: Path, tmp_path: Path) -> None:
    given = PianoRoll.from_midi(source)
    flags = ("--mode", "conditional", "--condition_midi", source)
    roll, trace = compose(both_sides, tmp_path / "a", *flags, "--condition_bars", 2, "--generation_length", 40)
    assert roll.width == 28 + 40  # a bar of 3/4, one of 4/4
    assert np.array_equal(roll.tokens[:, :28], given.tokens[:, :28])
    assert (roll.tokens[:, 28:] >= ONSET).any()
    assert trace.known.sum() == 128 * 28
    assert roll.tempos == given.tempos
    assert roll.time_signatures == given.time_signatures
    whole, _ = compose(both_sides, tmp_path / "b", *flags, "--bars", 1)
    assert whole.width == given.width + 16
    assert np.array_equal(whole.tokens[:, : given.width], given.tokens)
    other, _ = compose(both_sides, tmp_path / "c", *flags, "--condition_length", 20, "--generation_length", 48)
    assert not np.array_equal(other.tokens[:, 28:], roll.tokens[:, 28:])


@pytest.mark.parametrize("kind", ["both_sides", "past_only"])
def test_inpainting_composes_the_region_only(
    kind: str, source: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given = PianoRoll.from_midi(source)
    checkpoint = request.getfixturevalue(kind)
    flags = ("--mode", "inpainting", "--input_midi", source, "--candidates", 2)
    masks = ("--mask", "bars=1:2,pitch=C4:", "--mask", "time=40:48,pitch=36:48")
    roll, trace = compose(checkpoint, tmp_path, *flags, *masks)
    assert roll.width == given.width
    kept = trace.strip(trace.known)
    assert np.array_equal(roll.tokens[kept], given.tokens[kept])
    assert not kept[60:, 12:28].any()
    assert not kept[36:48, 40:48].any()
    assert kept[:60, :40].all()
    assert not np.array_equal(roll.tokens, given.tokens)
    assert (trace.known[:, roll.width :]).all()  # what fills up the last patch was not composed


def test_accompany_keeps_the_voice_and_composes_under_it(both_sides: str, source: Path, tmp_path: Path) -> None:
    given = PianoRoll.from_midi(source)
    roll, trace = compose(both_sides, tmp_path, "--mode", "accompany", "--input_midi", source, "--voice", "track:0")
    melody = given.tokens.copy()
    melody[:60] = SILENCE
    composed = ~trace.strip(trace.known)
    assert np.array_equal(roll.tokens[~composed], melody[~composed])
    assert not composed[melody > 0].any()
    assert composed[:72].any()
    assert not composed[77:].any()
    assert (roll.tokens[composed] != SILENCE).any()
    above, trace = compose(
        both_sides, tmp_path, "--mode", "accompany", "--input_midi", source, "--voice", "lowest", "--side", "above"
    )
    kept = trace.strip(trace.known)
    assert np.array_equal(above.tokens[kept], np.where(np.arange(128)[:, None] < 43, given.tokens, SILENCE)[kept])
    assert kept[:40].all()
    assert not kept[43:].any()


@pytest.mark.parametrize(
    ("flags", "notes", "kept"),
    [
        ("--mode inpainting --mask bars=1:2 --input_midi", 4, "they stay as they are"),
        ("--mode conditional --condition_bars 1 --bars 1 --condition_midi", 2, "the continuation has none"),
    ],
)
def test_drums_and_controllers_stay(
    both_sides: str, tmp_path: Path, flags: str, notes: int, kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    drums = b"".join(on(0, 36, channel=9) + off(960, 36, channel=9) for _ in range(4))
    path = tmp_path / "drums.mid"
    path.write_bytes(midi(bytes([0, 0xB0, 7, 99]) + scale(8), drums))
    compose(both_sides, tmp_path, *flags.split(), path)
    assert f"the model does not hear drums (4 notes); {kept}" in capsys.readouterr().out
    file = read_file(next(path for path in tmp_path.glob("*_000.mid")))
    assert (file.notes()[0][:, 1] == DRUMS).sum() == notes
    assert b"\xb0\x07\x63" in [event.data for event in file.tracks[0]]


@pytest.mark.parametrize("mode", ["accompany", "variation"])
def test_rectangles_limit_what_is_composed(both_sides: str, source: Path, tmp_path: Path, mode: str) -> None:
    given = PianoRoll.from_midi(source)
    flags = ("--strength", 1.0) if mode == "variation" else ("--voice", "right")
    masks = ("--mask", "time=12:20,pitch=32:50", "--mask", "time=30:34,pitch=:60")
    roll, trace = compose(both_sides, tmp_path, "--mode", mode, "--input_midi", source, *flags, *masks)
    region = np.zeros(given.tokens.shape, bool)
    region[32:50, 12:20] = region[:60, 30:34] = True
    composed = ~trace.strip(trace.known)
    rest = composed & ~region  # of notes that the rectangles cut
    assert (given.tokens[rest] == 1).all()
    assert composed[32:50, 12:20].all()
    assert np.array_equal(roll.tokens[~composed], given.tokens[~composed])


def test_variation_keeps_a_share(both_sides: str, source: Path, tmp_path: Path) -> None:
    given = PianoRoll.from_midi(source)
    shares = []
    for strength in (0.2, 1.0):
        flags = ("--mode", "variation", "--input_midi", source, "--strength", strength)
        roll, trace = compose(both_sides, tmp_path / str(strength), *flags)
        kept = trace.strip(trace.known)
        assert np.array_equal(roll.tokens[kept], given.tokens[kept])
        shares.append(kept.mean())
    assert shares[0] > shares[1]


@pytest.mark.parametrize(
    ("flags", "width"), [("--target_width 96", 96), ("--bars 5", 80), ("--seconds 6 --tempo 90", 36)]
)
def test_lengths_beyond_the_width_trained_on(past_only: str, tmp_path: Path, flags: str, width: int) -> None:
    roll, trace = compose(past_only, tmp_path, *flags.split())
    assert roll.width == width
    assert trace.width == -(-width // 16) * 16
    assert (trace.decided[0] >= 0).all()


def test_limits_hold(past_only: str, tmp_path: Path) -> None:
    limits = "--scale C_major_pentatonic --pitch_range C3:C6 --max_polyphony 2 --silence time=0:8 --silence pitch=60:64"
    roll, _ = compose(past_only, tmp_path, *limits.split(), "--target_width", 64)
    pitches = np.flatnonzero(roll.tokens.any(1))
    assert len(pitches)
    assert {pitch % 12 for pitch in pitches.tolist()} <= {0, 2, 4, 7, 9}
    assert pitches.min() >= 48
    assert pitches.max() < 84
    assert (roll.tokens > 0).sum(0).max() <= 2
    assert not roll.tokens[:, :8].any()
    assert not roll.tokens[60:64].any()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--mode conditional", "--mode conditional: --condition_midi is needed"),
        ("--mode conditional --condition_midi SONG --condition_length 999", "--condition_length 999: the piece has"),
        ("--mode conditional --condition_midi SONG --condition_bars 99", "--condition_bars 99: the piece has"),
        (
            "--mode conditional --condition_midi SONG --condition_bars 1 --condition_length 9",
            "--condition_length 9 and --condition_bars 1: give only one of them",
        ),
        ("--mode inpainting --input_midi SONG", "--mode inpainting: what is to be composed?"),
        ("--mode inpainting --input_midi SONG --mask time=4:4", "4:4 is an empty range"),
        ("--mode inpainting --input_midi SONG --mask bars=2:9", "--mask bars=2:9: 2:9 does not lie in the 4 bars"),
        ("--mode inpainting --input_midi SONG --mask_start 8", "--mask_start 8 --mask_end None: both are needed"),
        ("--mode inpainting --input_midi absent.mid --mask bars=0:1", "absent.mid: cannot be read"),
        ("--mode inpainting --input_midi SONG --mask bars=0:1 --bars 3", "--bars 3.0: in --mode inpainting the input"),
        ("--mode accompany --input_midi SONG --voice track:7", "track:7: SONG has the tracks"),
        (
            "--mode accompany --input_midi SONG --voice tenor",
            "--voice tenor: highest, lowest, all, melody, right, left,",
        ),
        ("--mode variation --input_midi SONG --strength 0", "--strength 0.0: a share over 0"),
        ("--mode variation --input_midi SONG --mask pitch=100:", "nothing to vary there"),
        (
            "--mode accompany --input_midi SONG --voice track:0 --mask pitch=:60",
            "--voice track:0 and --mask pitch=:60: beside a track, only rectangles of all pitches",
        ),
        ("--mask bars=1:2", "--mask bars=1:2: belongs to --mode inpainting or accompany or variation, this is"),
        ("--bars 4 --seconds 9", "--bars 4.0 and --seconds 9.0: give only one length"),
        ("--bars -4", "--bars -4.0: must be more than 0"),
        ("--seconds 99999", "--seconds 99999.0: 799992 time steps; a piece has 1 to 65535"),
        ("--scale H_minor", "--scale 'H_minor': neither note names"),
        ("--scale C --pitch_range 61:66", "--pitch_range 61:66 --scale C: together they leave no cell"),
        ("--key A_minor", "--key A_minor: this model knows no key"),
        (
            "--mode inpainting --input_midi SONG --mask bars=1:2 --silence time=12:36",
            "--silence time=12:36: where something is to be composed, no cell may sound",
        ),
        ("--mode inpainting --input_midi SONG --mask bars=0:1 --silence bars=0:9", "--silence bars=0:9: 0:9 does not"),
    ],
)
def test_mistakes_are_one_line(
    both_sides: str, source: Path, tmp_path: Path, one_error_line: ErrorLine, flags: str, expected: str
) -> None:
    folder = tmp_path / "out"
    arguments = [str(source) if flag == "SONG" else flag for flag in flags.split()]
    line = one_error_line("generate", "--checkpoint", both_sides, "--output_dir", folder, *arguments)
    assert expected.replace("SONG", str(source)) in line
    assert not folder.exists()


def test_a_model_that_cannot_listen_says_so(past_only: str, source: Path, one_error_line: ErrorLine) -> None:
    line = one_error_line("generate", "--checkpoint", past_only, "--mode", "accompany", "--input_midi", source)
    assert "is autoregressive and cannot use given music that comes later; use --model pop909-ar" in line
