from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fractalgen import render
from fractalgen.config import RenderConfig
from fractalgen.evaluation.health import FINDINGS
from fractalgen.trace import Intermediates
from fractalgen.training import pictures as module
from fractalgen.training.loggers import EventLog
from fractalgen.training.pictures import Pictures
from tests import tiny


def decoded(picture: bytes) -> np.ndarray:
    """The (last) frame of an encoded picture, uint8 (height, width, 3)."""
    with Image.open(io.BytesIO(picture)) as image:
        image.seek(getattr(image, "n_frames", 1) - 1)
        return np.asarray(image.convert("RGB"))


class Model(torch.nn.Linear):
    """What the pictures need of a model."""

    config = tiny.model_config()

    def __init__(self) -> None:
        super().__init__(1, 1)

    def sample(self, batch_size: int, **_: Any) -> tuple[torch.Tensor, Intermediates]:
        """The same rolls at every call, in no time; tests/training/test_training.py draws from a real model."""
        rolls = np.stack([tiny.tokens(seed) for seed in range(batch_size)])
        return torch.from_numpy(rolls.astype(np.int64)), tiny.intermediates(rolls)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Any]:
    """A trainer and a module as far as callbacks look at them, with a real TensorBoard folder."""
    log = EventLog(tmp_path, name="board", version="")
    trainer = SimpleNamespace(
        global_step=4,
        sanity_checking=False,
        is_global_zero=True,
        log_dir=str(tmp_path),
        logger=log,
        strategy=SimpleNamespace(model=None),
        callbacks=[],
    )
    module = SimpleNamespace(model=Model())

    def pictures(interval: int = 2, num_samples: int = 2) -> Pictures:
        crops = [{"tokens": torch.from_numpy(tiny.tokens(seed))} for seed in range(10, 15)]
        callback = Pictures(crops, interval, num_samples)
        callback.setup(trainer, module, "fit")  # type: ignore[arg-type]
        return callback

    def board() -> tuple[dict[str, bytes], dict[str, float]]:
        """What the event file holds: encoded pictures and scalars by tag."""
        log.save()
        events = EventAccumulator(str(tmp_path / "board"), size_guidance={"scalars": 0, "images": 0}).Reload()
        return (
            {tag: events.Images(tag)[-1].encoded_image_string for tag in events.Tags()["images"]},
            {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]},
        )

    yield SimpleNamespace(trainer=trainer, module=module, folder=tmp_path, pictures=pictures, board=board)
    log.experiment.close()


def test_pictures_come_when_a_validation_falls_on_a_multiple(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(Pictures, "draw", lambda self, trainer, model, step: drawn.append(step))
    callback = stage.pictures(interval=5000)
    for step in range(0, 30001, 2000):
        stage.trainer.global_step = step
        callback.on_validation_end(stage.trainer, stage.module)
    assert drawn == [10000, 20000, 30000]
    stage.trainer.is_global_zero = False
    callback.on_validation_end(stage.trainer, stage.module)
    stage.trainer.is_global_zero, stage.trainer.sanity_checking = True, True
    callback.on_validation_end(stage.trainer, stage.module)
    stage.trainer.sanity_checking = False
    stage.pictures(interval=5000, num_samples=0).on_validation_end(stage.trainer, stage.module)
    assert len(drawn) == 3


def test_pictures_and_statistics(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    stage.pictures().on_validation_end(stage.trainer, stage.module)
    assert torch.equal(torch.get_rng_state(), state)
    images, scalars = stage.board()
    names = [f"step_0000004_sample_{i}" for i in (0, 1)]
    kinds = ("generated", "generation_preview", "generation_animation", "hierarchical_poster", "ground_truth")
    assert set(images) == {f"val/{kind}/{name}" for kind in kinds for name in (*names, "sample_0", "sample_1")}
    assert images["val/generated/sample_1"] == images[f"val/generated/{names[1]}"]
    assert set(scalars) >= {
        f"val_notes/{key}_{kind}"
        for key in ("density", "notes", "pitch_min", "pitch_max", "silence", "polyphony", "hold_share")
        for kind in ("generated", "real")
    }
    config = RenderConfig()
    traces = tiny.intermediates(np.stack([tiny.tokens(0), tiny.tokens(1)])).traces
    for name, trace in zip(names, traces, strict=True):
        roll = tiny.PianoRoll(trace.tokens)
        expected = np.asarray(render.image(roll, config).convert("RGB"))
        assert np.array_equal(decoded(images[f"val/generated/{name}"]), expected)
        poster = np.asarray(render.poster(trace, config).convert("RGB"))
        assert np.array_equal(decoded(images[f"val/hierarchical_poster/{name}"]), poster)
        path = stage.folder / "generation_gifs" / f"{name}.gif"
        with Image.open(path) as gif:
            assert gif.info["loop"] == 0
            assert gif.info["duration"] == 200
        assert np.array_equal(decoded(path.read_bytes()), decoded(images[f"val/generation_preview/{name}"]))
    assert len(list((stage.folder / "generation_gifs").iterdir())) == 2
    table = capsys.readouterr().err
    assert "generated" in table
    assert "real" in table


def test_pictures_count_bars_in_the_steps_of_the_model(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "config", replace(Model.config, steps_per_quarter=8))
    steps: list[int] = []

    def spy(name: str) -> None:
        draw = getattr(render, name)

        def drawn(what: Any, cfg: Any) -> Any:
            if hasattr(what, "steps_per_quarter"):  # a roll or a trace, not a frame of one
                steps.append(what.steps_per_quarter)
            return draw(what, cfg)

        monkeypatch.setattr(render, name, drawn)

    spy("image")
    spy("poster")
    stage.pictures().on_validation_end(stage.trainer, stage.module)
    assert steps == [8] * 6


def test_the_animation_plays_in_the_image_tab(stage: Any) -> None:
    stage.pictures().on_validation_end(stage.trainer, stage.module)
    images, _ = stage.board()
    trace = tiny.intermediates(tiny.tokens(1)[None]).traces[0]
    frames = trace.frames()
    with Image.open(io.BytesIO(images["val/generation_animation/step_0000004_sample_1"])) as gif:
        assert gif.format == "GIF"  # TensorBoard serves it as the type that its first bytes tell
        assert gif.info["loop"] == 0
        assert gif.n_frames == len(frames) == 9  # type: ignore[attr-defined]
        for index, frame in enumerate(frames):
            gif.seek(index)
            expected = np.asarray(render.image(frame, RenderConfig()).convert("RGB"))
            height, width = 128 * 4, tiny.WIDTH * 4
            shown = np.asarray(gif.convert("RGB"))
            assert np.array_equal(shown[-height:, :width], expected[-height:, :width])
    (event,) = (
        EventAccumulator(str(stage.folder / "board")).Reload().Images("val/generation_animation/step_0000004_sample_1")
    )
    assert (event.step, event.width, event.height) == (4, *gif.size)


def test_a_failure_is_reported_once_per_cause(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(frames: Any, path: Path, cfg: Any) -> None:
        if path.name.startswith("step_0000006"):
            raise OSError("disk full")
        raise RuntimeError("no pen")

    monkeypatch.setattr("fractalgen.render.save_gif", broken)
    callback = stage.pictures()
    with pytest.warns(RuntimeWarning) as seen:
        callback.on_validation_end(stage.trainer, stage.module)
    assert len(seen) == 1
    text = str(seen[0].message)
    assert text.startswith("step 4: generation GIF failed, training goes on\nTraceback")
    assert "no pen" in text
    # everything else was drawn all the same
    images, scalars = stage.board()
    assert len(images) == 16
    assert not any("generation_animation" in tag for tag in images)
    assert {"val_notes/density_generated", "val/health/healthy"} <= set(scalars)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_validation_end(stage.trainer, stage.module)
    stage.trainer.global_step = 6
    with pytest.warns(RuntimeWarning, match="disk full"):
        callback.on_validation_end(stage.trainer, stage.module)


@pytest.mark.parametrize(
    ("target", "name", "told", "pictures"),
    [
        (Model, "sample", "pictures of samples failed", 4),  # the ground truth
        (module, "health_summary", "health of samples failed, training goes on", 20),
    ],
)
def test_what_cannot_be_drawn_or_judged_does_not_end_the_training(
    stage: Any, monkeypatch: pytest.MonkeyPatch, target: Any, name: str, told: str, pictures: int
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        torch.rand(3)
        raise ValueError("no idea")

    monkeypatch.setattr(target, name, broken)
    state = torch.get_rng_state()
    with pytest.warns(RuntimeWarning, match=told) as seen:
        stage.pictures().on_validation_end(stage.trainer, stage.module)
    assert len(seen) == 1
    images, scalars = stage.board()
    assert len(images) == pictures
    assert not any(tag.startswith("val/health") for tag in scalars)
    assert target is module or torch.equal(torch.get_rng_state(), state)


def test_health_is_logged_and_told_in_one_line(
    stage: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = np.zeros((128, tiny.WIDTH), np.uint8)

    def sample(self: Any, batch_size: int, **settings: Any) -> Any:
        rolls = np.stack([silent, silent, np.full_like(silent, 20)])
        return torch.from_numpy(rolls.astype(np.int64)), tiny.intermediates(rolls)

    monkeypatch.setattr(Model, "sample", sample)
    stage.pictures(num_samples=3).on_validation_end(stage.trainer, stage.module)
    _, scalars = stage.board()
    health = {tag.removeprefix("val/health/"): value for tag, value in scalars.items() if "health" in tag}
    assert {name for name in health if name.startswith("found_")} == {f"found_{name}" for name in FINDINGS}
    assert health["healthy"] == 0
    assert health["found_silent"] == pytest.approx(2 / 3)
    assert health["found_saturated"] == pytest.approx(1 / 3)
    assert health["found_stuck_note"] == 0
    assert health["density"] == pytest.approx(1 / 3)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert line.startswith("warning: step 4: 3 of 3 look wrong: 2 silent (nothing sounds); 1 saturated (100% of the")


def test_healthy_samples_are_passed_over_in_silence(
    stage: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sample(self: Any, batch_size: int, **settings: Any) -> Any:
        rolls = np.stack([tiny.tokens(seed) for seed in (10, 11)])  # two of the validation crops
        return torch.from_numpy(rolls.astype(np.int64)), tiny.intermediates(rolls)

    monkeypatch.setattr(Model, "sample", sample)
    stage.pictures().on_validation_end(stage.trainer, stage.module)
    assert stage.board()[1]["val/health/healthy"] == 1
    assert "warning" not in capsys.readouterr().err
