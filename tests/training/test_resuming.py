"""A run goes on exactly where another one ended, or says why it cannot."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest

from fractalgen.checkpoint import read_checkpoint
from fractalgen.errors import UserError
from fractalgen.training import command as training
from fractalgen.training.module import Training
from fractalgen.training.resume import newest_whole
from tests.training.checkpoints import checkpoint, same_state, scalars


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["ar", "mar"])
def test_resuming_is_exact(run: Any, tmp_path: Path, generator: str) -> None:
    settings = {"generator_types": (generator,) * 4, "num_images_to_log": 0, "dropout": 0.1}
    version = run(**settings)
    resumed = run(**settings, resume=str(checkpoint(version, 2)), output_dir=str(tmp_path / "other"))
    assert resumed == tmp_path / "other" / "lightning_logs" / "version_0"
    for step in (4, 5):
        assert same_state(checkpoint(version, step), checkpoint(resumed, step))
    assert same_state(version / "checkpoints/last.ckpt", resumed / "checkpoints/last.ckpt")
    assert not same_state(checkpoint(version, 2), checkpoint(version, 4))
    a, b = (scalars(folder).Scalars("train_loss") for folder in (version, resumed))
    assert [(event.step, event.value) for event in a[2:]] == [(event.step, event.value) for event in b]


@pytest.mark.slow
def test_resuming_between_validations_is_exact(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Exception):
        pass

    write = Training.write

    def power_cut(self: Training, metrics: dict[str, float]) -> None:
        if self.global_step == 4:
            raise Interrupted
        write(self, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(training, "LastCheckpoint", functools.partial(training.LastCheckpoint, minutes=0))
        patch.setattr(Training, "write", power_cut)
        with pytest.raises(Interrupted):
            run()
    last = tmp_path / "run/lightning_logs/version_0/checkpoints/last.ckpt"
    assert read_checkpoint(last)[0]["step"] == 3
    resumed = run(resume=str(last))
    assert resumed == tmp_path / "run" / "lightning_logs" / "version_0"
    assert len(list((resumed / "checkpoints").glob("step_*"))) == 3
    straight = run(output_dir=str(tmp_path / "straight"))
    assert same_state(resumed / "checkpoints/last.ckpt", straight / "checkpoints/last.ckpt")


@pytest.mark.slow
def test_resuming_with_another_accumulation_keeps_the_validation_steps(run: Any) -> None:
    version = run(max_steps=3, num_images_to_log=0)
    run(resume=str(checkpoint(version, 3)), max_steps=7, accumulate_grad_batches=3, num_images_to_log=0)
    steps = sorted(int(path.name[5:13]) for path in (version / "checkpoints").glob("step_*"))
    assert steps == [2, 3, 4, 6, 7]


def test_resuming_what_does_not_fit(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(run(max_steps=2, num_images_to_log=0), 2)
    junk, other = tmp_path / "junk.ckpt", tmp_path / "other"
    junk.write_bytes(b"junk")
    for file in path.parent.iterdir():  # as in a copy of the run, whose files are written in any order
        os.utime(file, (file.name.startswith("step"),) * 2)
    assert newest_whole(path.parents[1]) == path.with_name("last.ckpt")
    for changes, message in (
        ({"max_steps": 2}, "already at step 2, --max_steps is 2"),
        ({"scan_order": "row_major"}, "scan_order there is column_major, here row_major"),
        ({"generator_types": ("mar", *["ar"] * 3)}, r"--generator_types there is (ar ?)+, here mar ar"),
        ({"reveal_share": 0.5}, "the model there sees only what comes before, --reveal_share 0.5 makes another"),
        ({"resume": str(junk)}, r"--resume .* not a FractalGen checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            run(**{"resume": str(path), "output_dir": str(other), **changes})
    assert not other.exists()
    assert "there is" not in capsys.readouterr().err
    with pytest.raises(UserError, match="already at step 2"):
        run(resume=str(path), max_steps=2, seed=5, learning_rate=1e-3, schedule="constant")
    told = capsys.readouterr().err
    for remark in ("seed there is 0, here 5", "learning_rate there is 0.0006, here 0.001", "schedule there is cosine,"):
        assert f"--resume {path}: --{remark}" in told


@pytest.mark.slow
def test_a_cooldown_is_a_branch_that_keeps_the_state(run: Any, tmp_path: Path) -> None:
    plateau = run(schedule="constant", max_steps=4, num_images_to_log=0, val_check_interval_steps=4)
    path = checkpoint(plateau, 4)
    before = path.read_bytes()
    changes = {"schedule": "constant", "cooldown_steps": 3, "max_steps": 100, "num_images_to_log": 0}
    branch = run(**changes, resume=str(path), val_check_interval_steps=2)
    assert branch.name == "version_1"
    assert path.read_bytes() == before
    rates = [event.value for event in scalars(branch).Scalars("learning_rate")]
    assert rates == pytest.approx([6e-4, 6e-4 * (1 - (1 / 3) ** 0.5), 6e-4 * (1 - (2 / 3) ** 0.5)])
    # interrupted, it goes on to the same end in its own folder
    again = run(**changes, resume=str(checkpoint(branch, 6)), output_dir=str(tmp_path / "again"))
    assert same_state(checkpoint(again, 7), checkpoint(branch, 7))
    with pytest.raises(UserError, match="--cooldown_steps 3: for --schedule constant, not --schedule cosine"):
        run(**{**changes, "schedule": "cosine"}, resume=str(path))
