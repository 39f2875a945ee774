"""Scores on the command line: written beside the MIDI file, and given in place of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import ONSET
from tests.compose.test_plan import compose, marker_texts, save_model


@pytest.mark.slow
def test_a_score_stands_beside_the_music_and_may_be_given_again(tmp_path: Path) -> None:
    planner = save_model(tmp_path / "planner.safetensors")
    flags = ("--chords", "Dm7 G7/B", "--form", "A2 B2", "--save_musicxml")
    path, _ = compose(planner, tmp_path / "new", *flags)
    score = path.with_suffix(".musicxml")
    piece, written = PianoRoll.from_midi(path), PianoRoll.from_midi(score)
    assert written == piece
    assert marker_texts(score) == marker_texts(path)

    varied, _ = compose(planner, tmp_path / "varied", "--mode", "variation", "--input_midi", score)
    assert PianoRoll.from_midi(varied).width == piece.width
    longer, _ = compose(planner, tmp_path / "longer", "--mode", "conditional", "--condition_midi", score, "--bars", 1)
    assert (PianoRoll.from_midi(longer).tokens[:, : piece.width] == piece.tokens).all()

    made, trace = compose(planner, tmp_path / "sheet", "--mode", "accompany", "--lead_sheet", score)
    assert trace.plan is not None
    kept = (trace.strip(trace.known) & (written.tokens >= ONSET)).any(axis=1)
    assert kept.any()  # the upper staff is the melody
    assert set(marker_texts(made)) >= {"Dm7", "G7/B"}
