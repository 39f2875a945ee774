"""Traces: what they record, how they are kept, and the two ways to look at them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractalgen.errors import UserError
from fractalgen.music.tokens import velocities
from fractalgen.trace import Intermediates, Trace
from tests import tiny


def made_up(seed: int = 0, kind: str = "ar", known_until: int = 0, width: int = 16, **changes: Any) -> Trace:
    """A record of a random roll of 16 pitches; ``changes``: see :func:`tests.tiny.trace`."""
    rng = np.random.default_rng(seed)
    tokens = np.where(rng.random((16, width)) < 0.1, rng.integers(2, 34, (16, width)), 0).astype(np.uint8)
    tokens[:8, :8] = 0  # one patch that stays silent
    facts: dict[str, Any] = {"seed": seed, "checkpoint": "made-up", "settings": {"temperature": 0.9}}
    facts["known"] = np.broadcast_to(np.arange(width) < known_until, tokens.shape)
    return tiny.trace(tokens, (16, 8, 4, 1), kind, num_iter_list=(4, 2, 2, 1), **(facts | changes))


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["ar", "mar"]), columns=st.integers(1, 6))
@settings(max_examples=40)
def test_a_trace_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str, columns: int
) -> None:
    trace = made_up(seed, kind, width=8 * columns)
    path = tmp_path_factory.getbasetemp() / "round.trace.npz"
    trace.save(path)
    back = Trace.load(path)
    assert back == trace
    assert back.settings == trace.settings
    for name in ("tokens", "decided", "steps", "known", "seconds"):
        assert getattr(back, name).dtype == getattr(trace, name).dtype


def test_chances_are_kept_where_there_are_any(tmp_path: Path) -> None:
    trace = made_up(known_until=4)
    chances = np.where(trace.known, 0, np.random.default_rng(0).integers(0, 256, (16, 16))).astype(np.uint8)
    with_chances = dataclasses.replace(trace, chances=chances)
    assert with_chances != trace
    for name, kept in (("with", with_chances), ("without", trace)):
        kept.save(tmp_path / f"{name}.npz")
        assert Trace.load(tmp_path / f"{name}.npz") == kept
    with np.load(tmp_path / "without.npz") as file:
        assert "chances" not in file
    with pytest.raises(ValueError, match="chances must be uint8"):
        dataclasses.replace(trace, chances=chances.astype(np.float32))
    with pytest.raises(ValueError, match="chances of known cells must be 0"):
        dataclasses.replace(trace, chances=np.ones((16, 16), np.uint8))


def test_files_of_version_1_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the same but for the number: chances came with version 2."""
    trace = made_up()
    with monkeypatch.context() as past:
        past.setattr("fractalgen.trace.record.VERSION", 1)
        trace.save(tmp_path / "old.npz")
    with np.load(tmp_path / "old.npz") as file:
        assert json.loads(str(file["header"]))["version"] == 1
    assert Trace.load(tmp_path / "old.npz") == trace


def test_the_piece_of_a_trace() -> None:
    trace = made_up(settings={"tempo": 90.0, "steps_per_quarter": 2})
    roll = trace.roll
    assert np.array_equal(roll.tokens[:16], trace.tokens)
    assert not roll.tokens[16:].any()
    assert roll.tokens.shape == (128, 16)
    assert roll.seconds == pytest.approx(16 / 2 * 60 / 90, rel=1e-5)
    assert trace.steps_per_bar == 8
    assert made_up().roll.seconds == pytest.approx(16 / 4 / 2)


def test_traces_that_differ_are_not_equal() -> None:
    trace = made_up()
    assert trace != dataclasses.replace(trace, seed=5)
    assert trace != dataclasses.replace(trace, tokens=np.zeros_like(trace.tokens))
    assert trace != "a trace"


def test_process_frames_of_ar_follow_the_patches() -> None:
    trace = made_up(known_until=4)
    frames = trace.frames(record_interval=1)
    assert [frame.level_name for frame in frames] == ["Init", *(f"AR L0 patch {k}/4" for k in range(1, 5))]
    assert np.array_equal(frames[0].output, velocities(np.where(trace.known, trace.tokens, 0).astype(np.uint8), 32))
    for done, frame in enumerate(frames):
        assert frame.tokens is not None
        visible = trace.known | (trace.decided[0] < done)
        assert np.array_equal(frame.tokens, np.where(visible, trace.tokens, 0))
    assert np.array_equal(frames[-1].output, trace.velocities)
    assert [frame.elapsed for frame in frames] == sorted(frame.elapsed or 0.0 for frame in frames)


def test_process_frames_of_mar_are_named_by_iteration_and_batch() -> None:
    names = [frame.level_name for frame in made_up(kind="mar").frames()]
    assert names == ["Init", "Iter 1 batch 1", "Iter 1 batch 2", "Iter 2 batch 1", "Iter 2 batch 2"]


@pytest.mark.parametrize(("interval", "limit", "count"), [(0, 0, 9), (16, 0, 3), (0, 4, 4), (1, 0, 33), (1, 2, 2)])
def test_frames_are_spaced_and_the_last_is_always_there(interval: int, limit: int, count: int) -> None:
    trace = made_up(width=128)  # 32 patches
    frames = trace.frames(record_interval=interval, max_frames=limit)
    assert len(frames) == count
    assert np.array_equal(frames[-1].output, trace.velocities)


def test_hierarchical_frames_go_from_coarse_to_fine() -> None:
    trace = made_up()
    frames = list(trace.frames(view="hierarchical"))
    assert [frame.level for frame in frames] == [0, 0, 0, 0, 1, 1, 2, 2, 3]
    assert frames[0].level_name == "L0 step 1/4"
    sounding = [int((frame.output > 0).sum()) for frame in frames]
    assert sounding[0] <= sounding[3]
    assert sounding[3] == 3 * 64  # three patches of 8 x 8 are not silent
    assert sounding[3] >= sounding[5] >= sounding[7] == sounding[8]
    mean = trace.velocities[8:, 8:][trace.velocities[8:, 8:] > 0].mean()
    assert np.allclose(frames[3].output[8:, 8:], mean)
    assert np.array_equal(frames[8].output, trace.velocities)


def test_intermediates_stack_the_samples_of_a_batch() -> None:
    traces = [made_up(seed) for seed in (1, 2, 3)]
    frames = Intermediates(traces, record_interval=2)
    assert len(frames) == 3
    assert frames[2].output.shape == (3, 16, 16)
    assert frames[2].level_name == "AR L0 patch 4/4"
    assert [frame.iteration for frame in frames[1:]] == [2, 4]
    for sample, trace in enumerate(traces):
        assert np.array_equal(frames[-1].output[sample], trace.velocities)


@pytest.mark.parametrize("view", ["process", "hierarchical"])
def test_frames_bring_the_known_cells_along(view: str) -> None:
    trace = made_up(known_until=12)
    frames = list(trace.frames(view=view, record_interval=1))  # type: ignore[arg-type]
    for frame in frames:
        assert frame.known is not None
        assert frame.tokens is not None
        assert np.array_equal(frame.known, trace.known)
        assert np.array_equal(frame.output[trace.known], trace.velocities[trace.known])
        assert np.array_equal(frame.tokens[trace.known], trace.tokens[trace.known])
    assert frames[0].tokens is not None
    assert not frames[0].tokens[:, 12:].any()
    assert all(frame.known is None for frame in made_up().frames(view=view))  # type: ignore[arg-type]


def test_intermediates_stack_the_known_cells() -> None:
    free, half = made_up(1), made_up(2, known_until=8)
    known = Intermediates([free, half])[-1].known
    assert known is not None
    assert known.shape == (2, 16, 16)
    assert not known[0].any()
    assert np.array_equal(known[1], half.known)
    assert Intermediates([free])[-1].known is None


def test_a_trace_is_small(tmp_path: Path) -> None:
    made_up(width=2048).save(tmp_path / "a.trace.npz")  # as many cells as 128 x 256
    assert (tmp_path / "a.trace.npz").stat().st_size < 100_000


def test_planes_that_do_not_fit_are_refused() -> None:
    trace = made_up()
    with pytest.raises(ValueError, match="decided must be int16"):
        dataclasses.replace(trace, decided=trace.decided[:2])
    with pytest.raises(ValueError, match="decided at step 3 of 2"):
        dataclasses.replace(trace, steps=trace.steps[:2], seconds=trace.seconds[:2])


def test_what_is_not_a_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for content in (b"", b"words", b"PK\x03\x04 and no more"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a FractalGen trace"):
            Trace.load(path)
    np.savez(path, pictures=np.zeros(3))
    with pytest.raises(UserError, match="not a FractalGen trace"):
        Trace.load(path)
    with pytest.raises(UserError, match="cannot be read"):
        Trace.load(tmp_path / "nothing.npz")


def test_a_newer_trace_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as future:
        future.setattr("fractalgen.trace.record.VERSION", 99)
        made_up().save(tmp_path / "new.npz")
    with pytest.raises(UserError, match="trace version 99; this program reads up to 2: update FractalGen"):
        Trace.load(tmp_path / "new.npz")


def test_unknown_views_are_refused() -> None:
    with pytest.raises(UserError, match="--view upside_down"):
        made_up().frames(view="upside_down")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--record_interval -1"):
        made_up().frames(record_interval=-1)
