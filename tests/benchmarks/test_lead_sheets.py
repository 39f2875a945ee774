"""The benchmark of lead sheets: lead sheets of a corpus, the chords given, and the whole of it on a tiny model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lead_sheets import OURS, main, summary
from benchmarks.sheets import (
    EXAMPLE_SHEET,
    EXAMPLE_TRUTH,
    EXAMPLES,
    SHEET,
    TRUTH,
    blocks_of,
    given_chords,
    with_blocks,
    write_sheets,
)
from fractalgen.data.corpus import Corpus, write_corpus
from fractalgen.music.chords import Chords, parse_chord, spelled
from fractalgen.music.labels import KEYS, Attribute
from fractalgen.music.pianoroll import PianoRoll
from tests import tiny
from tests.benchmarks import ErrorLine
from tests.data.test_plans import song

MELODY = (72, 74, 71, 69)


def changes(text: str) -> Chords:
    return tuple((16 * bar, parse_chord(chord)) for bar, chord in enumerate(text.split()))


def sheet(path: Path, blocks: str, markers: str) -> Path:
    tokens = np.zeros((128, 64), np.uint8)
    for bar, pitch in enumerate(MELODY):
        tokens[pitch, 16 * bar + 4 : 16 * bar + 12] = 12, *[1] * 7
    texts = [(step, spelled(code)) for step, code in changes(markers)]
    PianoRoll(with_blocks(tokens, changes(blocks))).to_midi(path, markers=texts)
    return path


def test_the_chords_given_are_the_markers_but_for_a_first_one_that_contradicts_the_notes(tmp_path: Path) -> None:
    for blocks, markers, expected in (
        ("C Am F G/B", "C Am F G/B", "C Am F G/B"),
        ("Dm Am F G/B", "C Am F G/B", "Dm Am F G/B"),
        ("Cmaj7 Am F G7", "C Am F G", "C Am F G"),
        ("C Am F G", "C Am F Bb", "C Am F Bb"),
        ("C Am F G", "Eb", "C Am F G"),
    ):
        path = sheet(tmp_path / "sheet.mid", blocks, markers)
        for beat in (4, 8):
            found = given_chords(path, beat)
            assert [spelled(code) for _, code in found] == expected.split()
            assert [step for step, _ in found] == [4 * beat * bar for bar in range(len(found))]


def test_block_chords_and_melody_of_a_lead_sheet(tmp_path: Path) -> None:
    roll = PianoRoll.from_midi(sheet(tmp_path / "sheet.mid", "C Am F G/B", "C"))
    blocks = blocks_of(roll.notes(), roll.width)
    assert [np.flatnonzero(blocks[:, 16 * bar]).tolist() for bar in (0, 3)] == [[36, 48, 52, 55], [47, 50, 55, 59]]
    assert not blocks[60:].any()


def test_segments_of_a_song_are_averaged_first() -> None:
    found = summary([("a", {"x": 1.0}), ("a", {"x": 0.0}), ("b", {"x": 1.0})])
    assert found["x"] == pytest.approx({"mean": 0.75, "stderr": 0.25})


@pytest.mark.slow
def test_the_whole_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "corpus.safetensors"
    write_corpus([song(name, 9, voices=True) for name in ("one", "two")], {"one": "valid", "two": "valid"}, data)
    folder = tmp_path / "sheets"
    write_sheets(Corpus.open(data), [0, 1], folder)
    for name in ("one", "two"):
        shutil.copytree(folder / name / TRUTH, folder / name / "other")
    example = folder / EXAMPLES / "one__seg_0_8"
    example.mkdir(parents=True)
    for kind, name in ((SHEET, EXAMPLE_SHEET), (TRUTH, EXAMPLE_TRUTH), (TRUTH, "other.mid")):
        shutil.copy(folder / "one" / kind / "seg_0_8.mid", example / name)
    config = tiny.model_config(crop_length=128)
    config = replace(config, future_context=True, plan_width=8, attributes=(Attribute("key", KEYS),))
    model = tiny.save_model(tmp_path / "model.safetensors", config, gate_bias=-3)
    out, midi = tmp_path / "out.json", tmp_path / "midi"
    flags = ["--model", model, "--data", str(folder), "--midi", str(midi), "--json", str(out)]
    assert main(flags) == 0
    result = json.loads(out.read_text())
    assert (result["songs"], result["segments"]) == (2, 2)
    for part in ("systems", "given chords", "listening examples"):
        assert set(result[part]) == {TRUTH, "other", OURS, SHEET}
        assert result[part]["other"] == result[part][TRUTH]
    assert result["systems"][SHEET]["chord accuracy"]["mean"] == 1
    assert result["systems"][TRUTH]["chord accuracy"]["mean"] == 1
    assert result["systems"][TRUTH]["onset distance"]["mean"] == 0
    assert result["given chords"][TRUTH]["whole: quality"]["mean"] == 1
    assert result["given chords"][OURS]["whole: root"]["mean"] < 1
    melody = PianoRoll.from_midi(folder / "one" / SHEET / "seg_0_8.mid").tokens[62:]
    made = PianoRoll.from_midi(midi / "one" / OURS / "seg_0_8.mid").tokens
    assert np.array_equal(np.where(melody > 0, made[62:], 0), melody)
    assert not np.array_equal(made, PianoRoll.from_midi(folder / "one" / TRUTH / "seg_0_8.mid").tokens)


def test_mistakes_are_one_line(tmp_path: Path, one_error_line: ErrorLine) -> None:
    plain = tiny.save_model(tmp_path / "plain.safetensors", tiny.model_config())
    empty, one = tmp_path / "empty", tmp_path / "sheets" / "one"
    for kind in (SHEET, TRUTH):
        (one / kind).mkdir(parents=True)
        sheet(one / kind / "seg_0_4.mid", "C Am F G", "C Am F G")
    for flags, expected in (
        ([], "give either --data, a folder of lead sheets, or --corpus, a packed corpus"),
        (["--data", str(empty)], f"--data {empty}: no */lead_sheet/*.mid in it"),
        (["--data", str(one.parent), "--model", plain], f"--model {plain}: it was trained without plans"),
    ):
        assert expected in one_error_line(*flags, main=main)
    (one / TRUTH / "seg_0_4.mid").unlink()
    line = one_error_line("--data", one.parent, main=main)
    assert f"{one / SHEET / 'seg_0_4.mid'} has no {one / TRUTH / 'seg_0_4.mid'}" in line
