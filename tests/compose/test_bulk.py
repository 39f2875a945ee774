"""Many pieces: in parts that do not need each other, again after an interruption, and on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen import bulk, cli
from fractalgen.compose import parts
from fractalgen.config import EvaluateConfig
from fractalgen.evaluation.command import samples
from tests import tiny
from tests.dask_cluster import dask_cluster


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", tiny.model_config(), gate_bias=-3)


@pytest.fixture
def generate(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, bytes]]:
    """Composes five pieces in parts of two; the files of a folder."""
    monkeypatch.setattr(bulk, "SIZE", 2)

    def generate(folder: str, *flags: str) -> dict[str, bytes]:
        command = ["generate", "--checkpoint", checkpoint, "--seed", "1", "--num_samples", "5", "--batch_size", "2"]
        assert cli.main([*command, "--output_dir", str(tmp_path / folder), *flags]) == 0
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    return generate


def test_each_part_can_be_composed_by_itself(
    generate: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everything = generate("all", "--save_gif", "--gif_samples", "3")
    stems = [f"unconditional_{number:03d}" for number in range(5)]
    expected = {f"{stem}{ending}" for stem in stems for ending in (".mid", ".png")}
    assert set(everything) == expected | {f"{stem}_process.gif" for stem in stems[:3]}
    assert len({everything[f"{stem}.png"] for stem in stems}) == 5
    (only,) = (content for name, content in generate("one", "--sample", "3").items() if name.endswith(".mid"))
    assert only == everything["unconditional_003.mid"]
    # the first part is what a single one would begin with
    monkeypatch.setattr(bulk, "SIZE", 256)
    whole = generate("whole")
    assert all(whole[f"{stem}.mid"] == everything[f"{stem}.mid"] for stem in stems[:2])
    assert all(whole[f"{stem}.mid"] != everything[f"{stem}.mid"] for stem in stems[2:])


def test_a_run_that_was_interrupted_goes_on(
    generate: Callable[..., dict[str, bytes]],
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_error_line: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = generate("run")
    for name in ("unconditional_003.png", "unconditional_004.mid"):
        (tmp_path / "run" / name).unlink()
    composed = []
    write_part = parts.write_part

    def spy(job: parts.Composition, order: parts.Order, *rest: object) -> parts.Written:
        composed.append(order.part.first)
        return write_part(job, order, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("fractalgen.compose.command.write_part", spy)
    assert generate("run", "--resume") == before
    assert composed == [2, 4]
    capsys.readouterr()
    run = ["--checkpoint", checkpoint, "--output_dir", tmp_path / "run", "--num_samples", "5", "--resume"]
    assert "unconditional_001.mid is of another command" in one_error_line("generate", *run, "--seed", "2")
    assert "--resume: needs the --seed of that command" in one_error_line("generate", *run)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.slow
def test_a_cluster_composes_the_same(generate: Callable[..., dict[str, bytes]], checkpoint: str) -> None:
    settings: dict[str, Any] = {
        "data": "",
        "checkpoint": checkpoint,
        "num_samples": 5,
        "batch_size": 2,
        "device": "cpu",
    }
    model = bulk.loaded_model(checkpoint, None, "cpu")
    with dask_cluster(workers=2, threads=2) as address:
        there = generate("there", "--save_gif", "--scheduler", address)
        drawn_there = samples(EvaluateConfig(**settings, scheduler=address), model, ends=False)
    assert there == generate("here", "--save_gif")
    drawn = samples(EvaluateConfig(**settings), model, ends=False)
    assert [len(part.tokens) for part in drawn] == [2, 2, 1]
    for one, other in zip(drawn, drawn_there, strict=True):
        assert np.array_equal(one.tokens, other.tokens)
        assert [roll.tokens.tobytes() for roll in one.rolls] == [roll.tokens.tobytes() for roll in other.rolls]
