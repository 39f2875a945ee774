"""Files of chorales become a corpus, held or struck anew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fractalgen.data.reading import restruck
from fractalgen.errors import UserError
from fractalgen.music.tokens import merge_notes
from tests.data.test_prepare import run


def test_a_json_file_of_chorales(tmp_path: Path) -> None:
    piece = [[72, 67, 64, 48]] * 4 + [[72, 65, 62, 50]] * 2 + [[], [72]] + [[72, 67]] * 8
    path = tmp_path / "jsb.json"
    path.write_text(json.dumps({"train": [piece, []], "valid": [piece[:4]], "test": [piece[:5]]}), encoding="utf-8")
    summary, corpus = run(path)
    assert summary.splits == {"train": 1, "valid": 1, "test": 1}
    assert [entry.reason for entry in summary.skipped] == ["no notes"]
    first = corpus.notes(corpus.song_ids.index("train/000"))
    assert first[first["pitch"] == 72]["start"].tolist() == [0, 7]  # held over the change of the chord below
    assert first[first["pitch"] == 72]["duration"].tolist() == [6, 9]
    assert first["velocity"].tolist() == [16] * len(first)
    for text in ("{", "[]", "{}", '{"train": [[["x"]]], "valid": [], "test": []}', '{"train": [[[200]]]}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="not a file of chorales"):
            run(path)


def test_restruck_notes_are_the_steps_of_the_roll() -> None:
    notes = merge_notes([60, 72, 60], [0, 1, 4], [3, 2, 6], [7, 9, 8])
    single = restruck(notes)
    columns = [single[name].tolist() for name in ("start", "pitch", "duration", "velocity")]
    assert columns == [[0, 1, 1, 2, 4, 5], [60, 60, 72, 60, 60, 60], [1] * 6, [7, 7, 9, 7, 8, 8]]
    assert len(restruck(notes[:0])) == 0


def test_chorales_struck_anew_are_a_sequence_of_chords(tmp_path: Path) -> None:
    piece = [[72, 67, 64, 48], [72, 67, 64, 48], [72, 72, 67], [], [67]]
    path = tmp_path / "jsb.json"
    path.write_text(json.dumps({"train": [piece], "valid": [piece[:2]], "test": [piece]}), encoding="utf-8")
    held, anew = run(path)[1], run(path, restrike=True)[1]
    song = anew.song_ids.index("train/000")
    tokens, expected = anew.tokens(song), np.zeros((128, 16), np.uint8)
    for step, chord in enumerate(piece):
        expected[chord, step] = 2 + 16  # the middle velocity
    assert np.array_equal(tokens, expected)
    assert np.array_equal(held.tokens(held.song_ids.index("train/000")) > 0, expected > 0)
    assert "a repeated pitch is held" in held.metadata["assumed"]
    assert "a repeated pitch is struck anew" in anew.metadata["assumed"]
