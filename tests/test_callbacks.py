from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fractalgen import callbacks, render
from fractalgen.callbacks import Pictures, warn_if_degenerate
from tests import tiny


class Board:
    """Collects what would go to TensorBoard."""

    def __init__(self) -> None:
        self.images: dict[str, np.ndarray] = {}
        self.scalars: dict[str, float] = {}

    def add_image(self, tag: str, image: np.ndarray, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.images[tag] = image

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars[tag] = value


class Model(torch.nn.Linear):
    """What the pictures need of a model."""

    config = tiny.model_config()
    sample = tiny.sample

    def __init__(self) -> None:
        super().__init__(1, 1)


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    """A trainer and a module as far as callbacks look at them."""
    trainer = SimpleNamespace(
        global_step=4,
        sanity_checking=False,
        is_global_zero=True,
        log_dir=str(tmp_path),
        logger=SimpleNamespace(experiment=Board()),
    )
    module = SimpleNamespace(model=Model())

    def pictures(interval: int = 2, num_samples: int = 2) -> Pictures:
        crops = [{"tokens": torch.from_numpy(tiny.tokens(seed))} for seed in range(10, 15)]
        callback = Pictures(crops, interval, num_samples)  # type: ignore[arg-type]
        callback.setup(trainer, module, "fit")  # type: ignore[arg-type]
        return callback

    return SimpleNamespace(trainer=trainer, module=module, folder=tmp_path, pictures=pictures)


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
    board = stage.trainer.logger.experiment
    names = [f"step_0000004_sample_{i}" for i in (0, 1)]
    kinds = ("generated", "generation_preview", "ground_truth")
    assert set(board.images) == {f"val/{kind}/{name}" for kind in kinds for name in names}
    assert set(board.scalars) >= {
        f"val_notes/{key}_{kind}"
        for key in ("density", "notes", "pitch_min", "pitch_max", "silence", "polyphony", "hold_share")
        for kind in ("generated", "real")
    }
    for index, name in enumerate(names):
        roll = tiny.PianoRoll(tiny.tokens(index))
        expected = np.asarray(render.image(roll, render.RenderConfig()).convert("RGB"))
        assert np.array_equal(board.images[f"val/generated/{name}"], expected)
        with Image.open(stage.folder / "generation_gifs" / f"{name}.gif") as gif:
            assert gif.info["loop"] == 0
            assert gif.info["duration"] == 200
            gif.seek(gif.n_frames - 1)  # type: ignore[attr-defined]
            assert np.array_equal(np.asarray(gif.convert("RGB")), board.images[f"val/generation_preview/{name}"])
    assert len(list((stage.folder / "generation_gifs").iterdir())) == 2
    table = capsys.readouterr().err
    assert "generated" in table
    assert "real" in table


def test_a_failure_is_reported_once_per_cause(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(frames: Any, path: Path, cfg: Any, fps: float) -> None:
        if path.name.startswith("step_0000006"):
            raise OSError("disk full")
        raise RuntimeError("no pen")

    monkeypatch.setattr(callbacks.render, "save_gif", broken)
    callback = stage.pictures()
    with pytest.warns(RuntimeWarning) as seen:
        callback.on_validation_end(stage.trainer, stage.module)
    assert len(seen) == 1
    text = str(seen[0].message)
    assert text.startswith("step 4: generation GIF failed, training goes on\nTraceback")
    assert "no pen" in text
    # everything else was drawn all the same
    assert len(stage.trainer.logger.experiment.images) == 6
    assert "val_notes/density_generated" in stage.trainer.logger.experiment.scalars
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_validation_end(stage.trainer, stage.module)
    stage.trainer.global_step = 6
    with pytest.warns(RuntimeWarning, match="disk full"):
        callback.on_validation_end(stage.trainer, stage.module)


def test_a_model_that_cannot_sample_does_not_end_the_training(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, **settings: Any) -> None:
        torch.rand(3)
        raise ValueError("no idea")

    monkeypatch.setattr(Model, "sample", broken)
    state = torch.get_rng_state()
    with pytest.warns(RuntimeWarning, match="pictures of samples failed"):
        stage.pictures().on_validation_end(stage.trainer, stage.module)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(stage.trainer.logger.experiment.images) == 2  # the ground truth


def test_silent_and_saturated_samples() -> None:
    silent, full, fine = np.zeros((128, 16)), np.full((128, 16), 3), tiny.tokens(0, 16, 5)
    with pytest.warns(RuntimeWarning, match="step 8: all 2 samples are silent"):
        warn_if_degenerate(np.stack([silent, silent]), 8)
    with pytest.warns(RuntimeWarning, match="all 2 samples are saturated: 100% of the cells sound"):
        warn_if_degenerate(np.stack([full, full]), 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_degenerate(np.stack([silent, fine]), 8)
        warn_if_degenerate(np.stack([full, fine]), 8)
