"""The benchmark of steering: its measures by hand, and the whole of it on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.steering import labels_of, main, met, requests
from fractalgen import FractalGen
from fractalgen.music.labels import KEYS, Attribute
from tests import tiny
from tests.benchmarks import ErrorLine

DENSITY = Attribute("density", (), (0.0, 4.0, 8.0, 40.0), (0.0, 0.3, 0.6, 1.0), "notes a bar of four quarters")


def key(name: str) -> int:
    return KEYS.index(name) + 1


def test_requests_that_are_met_exactly_and_nearly() -> None:
    wanted = np.array([key(name) for name in ("C major", "C major", "A minor", "A minor", "C major", "C major")])
    names = ("C major", "A minor", "C major", "F major", "C minor")
    assert met(wanted, np.array([*map(key, names), 0]), bins=False) == pytest.approx((1 / 6, 3 / 6))
    assert met(np.array([1, 2, 3, 1]), np.array([1, 3, 1, 0]), bins=True) == (0.25, 0.5)
    assert requests(DENSITY, 5).tolist() == [1, 2, 3, 1, 2]


def test_labels_are_measured_in_the_rolls() -> None:
    model = FractalGen(replace(tiny.model_config(), attributes=(DENSITY,)))
    rolls = np.stack([tiny.tokens(0, 16, notes) for notes in (2, 6, 40)])
    found = labels_of(model, DENSITY, rolls)
    assert found[0] < found[2]
    assert found.tolist() == [DENSITY.label(float((roll > 1).sum())) for roll in rolls]


def test_the_whole_benchmark(tmp_path: Path, one_error_line: ErrorLine) -> None:
    plain, labelled = (
        tiny.save_model(tmp_path / f"{name}.safetensors", replace(tiny.model_config(), attributes=attributes), -3)
        for name, attributes in (("plain", ()), ("labelled", (Attribute("key", KEYS), DENSITY)))
    )
    out = tmp_path / "out.json"
    flags = ["--num_samples", "3", "--width", "32", "--cfg", "1", "2", "--json", str(out)]
    assert main(["--model", labelled, *flags]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["attribute"], row["cfg"]) for row in rows] == [
        (a, c) for a in ("key", "density") for c in (None, 1, 2)
    ]
    assert all(0 <= row["exact"] <= row["near"] <= 1 for row in rows)
    assert "it was trained without attributes" in one_error_line("--model", plain, *flags, main=main)
    line = one_error_line("--model", labelled, "--attributes", "tempo", main=main)
    assert "--attributes tempo: " in line
    assert "knows key, density" in line
