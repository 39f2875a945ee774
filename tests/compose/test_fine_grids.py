"""Triplets and swing from end to end: a tiny model of 12 steps a quarter composes, continues and fills in."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fractalgen.music.labels import KEYS, Attribute
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import NOTE
from tests import tiny
from tests.compose.test_plan import compose, marker_texts

LEVELS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    settings = tiny.train_config(
        Path(),
        patch_sizes=(128, 16, 4, 1, 1),
        generator_types=("ar",) * LEVELS,
        embed_dims=(16,) * LEVELS,
        num_blocks=(1,) * LEVELS,
        num_heads=(2,) * LEVELS,
        context_pitches=(0, 2, 1, 1, 0),
        context_past=(0, 4, 1, 1, 0),
        max_children=(0,) * LEVELS,
    )
    meters = Attribute("meter", ("4/4", "12/8"))
    config = replace(
        settings.model_config(12), future_context=True, plan_width=8, attributes=(Attribute("key", KEYS), meters)
    )
    return tiny.save_model(tmp_path_factory.mktemp("model") / "fine.safetensors", config)


def swung(bars: int = 2) -> PianoRoll:
    """Eighths at two thirds of each beat, and one triplet of quarters."""
    rows = [(60 + beat % 5, 12 * beat + late, 8 - late // 2, 20) for beat in range(4 * bars) for late in (0, 8)]
    rows += [(48, 8 * k, 8, 10) for k in range(3)]
    notes = np.sort(np.array(rows, NOTE), order=["start", "pitch"])
    return PianoRoll.from_notes(notes, 48 * bars, steps_per_quarter=12)


@pytest.mark.parametrize(("meter", "length"), [((4, 4), 48), ((12, 8), 72), ((9, 8), 54), ((6, 8), 36)])
def test_swing_and_triplets_come_back(tmp_path: Path, meter: tuple[int, int], length: int) -> None:
    """MIDI -> roll -> MIDI, on ticks of thirds of a quarter, with bar lines where the meter has them."""
    piece = replace(swung(), time_signatures=((0, *meter),))
    piece.to_midi(tmp_path / "a.mid")
    again = PianoRoll.from_midi(tmp_path / "a.mid", 12)
    assert again == piece
    assert again.downbeats().tolist() == list(range(0, 96, length))
    assert PianoRoll.from_midi(tmp_path / "a.mid", 4) != piece
    again.to_midi(tmp_path / "b.mid")
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()


def test_triplets_are_written_as_tuplets(tmp_path: Path) -> None:
    pytest.importorskip("music21")
    from fractalgen.music.musicxml_writer import write_musicxml

    write_musicxml(swung(), tmp_path / "a.musicxml")
    assert PianoRoll.from_midi(tmp_path / "a.musicxml", 12) == swung()
    assert re.search(
        r"<actual-notes>3</actual-notes>\s*<normal-notes>2</normal-notes>", (tmp_path / "a.musicxml").read_text()
    )


def test_a_model_composes_in_twelve_eight(model: str, tmp_path: Path) -> None:
    """A bar of 12/8 is two columns of six eighths; pictures, pages and files have its bar lines."""
    flags = ("--meter", "12/8", "--form", "A1 A1", "--chords", "C | G", "--save_html")
    path, trace = compose(model, tmp_path, *flags)
    roll = PianoRoll.from_midi(path, 12)
    assert roll.time_signatures == ((0, 12, 8),)
    assert trace.bars == (0, 72)
    assert trace.layout.lengths.tolist() == [36] * 4
    assert trace.patches == ((16, 48), (4, 12), (1, 3), (1, 1))
    assert np.array_equal(trace.roll.tokens[:, : roll.width], roll.tokens)
    assert (trace.roll.notes()["start"] % 3 != 0).any()  # not all of it would fit sixteenths
    assert marker_texts(path)[:2] == ["[A]", "C"]
    page = (tmp_path / "unconditional_000.html").read_text(encoding="utf-8")
    piece = json.loads(re.search(r'(\{"title".*?\})</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert piece["bars"] == [0, 72]
    assert piece["patch_steps"][1:] == [48, 12, 3, 1]
    assert [block.size for block in trace.frames(view="levels")[1].blocks] == [(16, 48), (4, 12), (1, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("conditional", "--condition_midi", "--bars", 1),
        ("inpainting", "--input_midi", "--compose_bars", "2"),
        ("accompany", "--input_midi", "--chords", "Am"),
        ("variation", "--input_midi", "--strength", 0.1),
    ],
)
def test_given_triplets_stay_where_they_are(model: str, tmp_path: Path, flags: tuple[object, ...]) -> None:
    mode, flag, *rest = flags
    swung().to_midi(tmp_path / "given.mid")
    path, trace = compose(model, tmp_path, "--mode", mode, flag, tmp_path / "given.mid", *rest)
    result = PianoRoll.from_midi(path, 12)
    known = trace.strip(trace.known)[:, :96]
    assert known.any()
    assert np.array_equal(result.tokens[:, :96][known], swung().tokens[known]) or mode == "accompany"
    if mode == "conditional":
        assert len(result.downbeats()) == 3
