"""The benchmark of plans: its measures by hand, and the whole of it on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plan_agreement import agreement, same_roots
from benchmarks.planning import main
from fractalgen.data.corpus import write_corpus
from fractalgen.music.chords import NO_CHORD, parse_chord
from fractalgen.music.labels import KEYS, Attribute
from tests import tiny
from tests.data.test_plans import song

METERS = Attribute("meter", ("4/4", "3/4"))


def codes(text: str) -> np.ndarray:
    return np.array([parse_chord(chord) for chord in text.split()])


def test_chords_that_agree_in_part() -> None:
    wanted = codes("C C C C C N.C.")
    found = codes("C C7 Cm Am/C N.C. C")
    assert agreement(wanted, found) == pytest.approx(
        {"root": 3 / 5, "root and third": 2 / 5, "quality": 1 / 5, "bass": 4 / 5}
    )
    assert same_roots(codes("C G Am N.C."), np.array([*codes("C7 F Am"), NO_CHORD])) == 0.5


@pytest.mark.slow
def test_the_whole_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    songs = [song(name, bars, voices=True) for name, bars in (("one", 34), ("two", 40), ("four", 36))]
    songs.append(song("three", 20))
    data = tmp_path / "corpus.safetensors"
    write_corpus(songs, {"one": "valid", "two": "valid", "four": "valid", "three": "train"}, data)
    config = replace(
        tiny.model_config(crop_length=256),
        future_context=True,
        plan_width=8,
        attributes=(Attribute("key", KEYS), METERS),
    )
    model = tiny.save_model(tmp_path / "model.safetensors", config, gate_bias=-3)
    plain = tiny.save_model(tmp_path / "plain.safetensors", replace(config, plan_width=0))
    out = tmp_path / "out.json"
    flags = ["--data", str(data), "--num_samples", "2", "--cfg", "1", "2", "--json", str(out)]
    assert main([*flags, "--model", model]) == 0
    result = json.loads(out.read_text())
    assert result["corpus"]["chords"]["quality"] == 1.0  # these chords were estimated
    assert result["corpus"]["bars that come back"] > 0.8
    assert result["corpus"]["likeness"] == pytest.approx(1.0)
    assert [row["guidance"] for row in result["chords"]] == ["the song itself", "1", "2"]
    assert result["chords"][0]["root"] == 1.0
    assert result["accompaniments"]["given cells changed"] == 0
    assert result["accompaniments"]["pieces"] == 2
    assert result["gaps"]["bass on downbeats around"] == 1.0
    assert [(row["meter"], row["songs"]) for row in result["meters"]] == [("4/4", 1.0)]
    assert main([*flags, "--model", plain]) == 2
    assert "was trained without plans" in capsys.readouterr().err
