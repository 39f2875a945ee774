"""The benchmark of drawing: what it compares is the same picture, and its figures are of this run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("imageio", reason="imageio, which is compared against, is not installed")

from benchmarks import rendering


def music(width: int, seed: int = 0) -> np.ndarray:
    """Some notes."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((128, width)) < 0.02, 20, 0).astype(np.uint8)


def test_a_roll_is_recorded_as_a_sampler_would() -> None:
    tokens = music(32)
    tokens[:16, :16] = 0
    trace = rendering.recorded(tokens)
    assert np.array_equal(trace.frames()[-1].output > 0, tokens > 0)
    assert trace.decided[0][0, 0] == 0
    assert trace.decided[0][16, 0] == 1  # pitches of a column first
    assert trace.decided[0][0, 16] == 8
    for level, size in ((1, 16), (2, 4)):
        sounds = tokens.reshape(128 // size, size, 32 // size, size).any(axis=(1, 3))
        assert np.array_equal(trace.decided[level] >= 0, sounds.repeat(size, 0).repeat(size, 1))
        assert trace.decided[level].max() == 15
    assert np.array_equal(trace.decided[3] >= 0, tokens > 0)
    assert trace.frames(view="density")[-1].output.max() > 0.9


def test_both_ways_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "REPEATS", 1)
    result = rendering.compare_gifs(tmp_path, [rendering.recorded(music(32, seed)) for seed in (1, 2)])
    assert (result["samples"], result["frames"]) == (2, 15)
    assert result["rolls_identical"] is True
    for name in ("matplotlib", "fractalgen"):
        sizes = [(tmp_path / f"{name}_{index}.gif").stat().st_size for index in (0, 1)]
        assert result[name]["bytes_a_sample"] == round(sum(sizes) / 2)
    ours = rendering.rolls_of(tmp_path / "fractalgen_0.gif", 512)
    theirs = rendering.rolls_of(tmp_path / "matplotlib_0.gif", 512)
    assert ours[0].shape == theirs[0].shape
    assert np.array_equal((ours[-1] != ours[-1][0, 0]).any(axis=2), (theirs[-1] != theirs[-1][0, 0]).any(axis=2))


@pytest.mark.slow
def test_the_command_draws_a_long_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all formats but one left out, and a short piece for a long one."""
    monkeypatch.setattr(rendering, "REPEATS", 1)
    monkeypatch.setattr(rendering, "SAMPLES", 1)
    monkeypatch.setattr(rendering, "LONG", 48)
    monkeypatch.setattr(rendering, "chorales", lambda: [music(32), music(32)])
    skipped = [form for form in rendering.ENDINGS if form != "png"]
    assert rendering.main(["--skip", *skipped, "--json", str(tmp_path / "out.json")]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result["long"]) == {"png"}
    assert 50 < result["long"]["png"]["megabytes"] < 1000
    assert 0 < result["trace_bytes"] < 100_000
    assert "times_faster" in capsys.readouterr().out
