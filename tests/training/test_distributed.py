"""Several processes train as one: over gloo and the loopback device, with DDP and FSDP."""

from __future__ import annotations

import csv
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fractalgen.errors import UserError
from fractalgen.training import command
from fractalgen.training.command import train
from fractalgen.training.pictures import Pictures
from tests import tiny

EVERYTHING: dict[str, Any] = {
    # all that differs from crop to crop, and an average: only what is drawn per device is left out
    "attributes": ("all",),
    "plan_width": 8,
    "reveal_share": 0.5,
    "label_dropout": 0.5,
    "ema_decay": 0.5,
    "max_children": (0, 0, 0, 0),
    "learning_rate": 0.01,
    "accumulate_grad_batches": 1,
    "logger": "csv",
    "val_crops": 3,
    "max_steps": 4,
    "num_images_to_log": 0,
}


OF_SAMPLES = ("val_notes/", "val/health/")
SCRIPT = """
import os, sys, torch
from pathlib import Path
from fractalgen.training.command import train
if "LOCAL_RANK" in os.environ:  # the second one; a cluster may be without these
    assert not {"symusic", "jsonargparse", "imageio_ffmpeg"} & set(sys.modules)
from tests import tiny

torch.set_num_threads(1)
settings = {"max_steps": 2, "val_crops": 2, "log_images_every_n_steps": 2, "num_images_to_log": 1}
train(tiny.train_config(Path(sys.argv[1]), data=sys.argv[2], devices="2", strategy="ddp", **settings))
"""


def run(folder: Path, corpus: Path, **changes: Any) -> Path:
    return train(tiny.train_config(folder, data=str(corpus), **{**EVERYTHING, **changes}))


def process(rank: int, ports: list[int], works: tuple[Callable[[], object], ...]) -> None:
    """One of two processes, in the environment that torchrun gives it."""
    for port, work in zip(ports, works, strict=True):
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_PORT")
        values = (rank, rank, 2, 2, 0, port)
        os.environ |= {name: str(value) for name, value in zip(names, values, strict=True)}
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "TORCHELASTIC_RUN_ID": "test",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        work()


def two_processes(*works: Callable[[], object]) -> None:
    """Run each of ``works`` in two processes, which have this one's modules already.

    This process keeps the stores at which they meet, as torchrun does, each at a free port.
    """
    stores = [torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in works]
    ports = [store.port for store in stores]
    context = multiprocessing.get_context("fork")
    pair = [context.Process(target=process, args=(rank, ports, works)) for rank in range(2)]
    for one in pair:
        one.start()
    for one in pair:
        one.join(300)
        one.kill()
        one.join()
    assert [one.exitcode for one in pair] == [0, 0]


def curve(version: Path) -> list[dict[str, float]]:
    """The rows of the table, one for each step, without what is measured in samples."""
    with (version / "metrics.csv").open() as file:
        rows = [
            {name: float(value) for name, value in row.items() if value and not name.startswith(OF_SAMPLES)}
            for row in csv.DictReader(file)
        ]
    first = int(rows[0]["step"])
    assert [row["step"] for row in rows] == list(range(first, first + len(rows)))
    return rows


def assert_same_run(first: Path, second: Path, tolerance: float = 1e-4) -> None:
    """The same losses at the same steps, and the same weights, averages and moments at the end, to rounding."""
    assert len(curve(first)) == len(curve(second)) == 4
    for one, other in zip(curve(first), curve(second), strict=True):
        assert one == pytest.approx(other, rel=tolerance, nan_ok=True)
    contents = [torch.load(version / "checkpoints/last.ckpt", weights_only=True) for version in (first, second)]
    for name in ("state_dict", "current_model_state"):
        # with FSDP, weight decay falls on weights that no crop has needed, too
        torch.testing.assert_close(*(content[name] for content in contents), rtol=2e-3, atol=1e-4)
    one, other = (content["optimizer_states"][0]["state"] for content in contents)
    torch.testing.assert_close(one, {number: other[number] for number in one}, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "optimizer"), [("ddp", "muon"), ("fsdp", "adamw")])
def test_two_processes_train_as_one(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: str, optimizer: str
) -> None:
    settings = {"optimizer": optimizer, "batch_size": 4}
    one = run(tmp_path / "one", corpus, **settings)
    pair = {"optimizer": optimizer, "batch_size": 2, "devices": "2", "strategy": strategy}
    pictures = int(strategy == "fsdp")  # where the weights have to be gathered for them

    middle = next((one / "checkpoints").glob("step_00000002-*"))
    two_processes(
        lambda: run(tmp_path / "two", corpus, **pair, num_images_to_log=pictures, log_images_every_n_steps=4),
        # and they take over from one process, in the middle
        lambda: run(tmp_path / "one to two", corpus, **pair, resume=str(middle)),
    )
    two = tmp_path / "two/run/lightning_logs/version_0"
    assert_same_run(one, two)
    assert len(list(two.glob("generation_gifs/*.gif"))) == pictures
    handed = tmp_path / "one to two/run/lightning_logs/version_0"
    assert curve(handed)[-1] == pytest.approx(curve(one)[-1], rel=1e-4, nan_ok=True)
    # one process takes over from them
    middle = next((two / "checkpoints").glob("step_00000002-*"))
    capsys.readouterr()
    back = run(tmp_path / "two to one", corpus, **settings, resume=str(middle))
    assert curve(back)[-1] == pytest.approx(curve(one)[-1], rel=1e-4, nan_ok=True)
    assert "crops a step" not in capsys.readouterr().err
    if strategy == "fsdp":
        return
    run(tmp_path / "smaller", corpus, **{**settings, "batch_size": 2}, resume=str(middle), max_steps=3)
    assert "4 crops a step there, 2 here (--batch_size 2 x" in capsys.readouterr().err
    header = torch.load(tmp_path / "smaller/run/lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert header["fractalgen"]["crops_seen"] == 2 * 4 + 1 * 2


@pytest.mark.slow
def test_lightning_starts_the_process_of_the_second_device(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a script of one's own, which Lightning starts once more."""
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)

    def first() -> None:
        """The script in a fork of this process, which has the large libraries already."""
        sys.modules["__main__"].__spec__ = None
        sys.argv = [str(script), str(tmp_path), str(corpus)]
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        runpy.run_path(str(script), run_name="__main__")

    process = multiprocessing.get_context("fork").Process(target=first)
    process.start()
    process.join()
    told = capfd.readouterr().err
    assert process.exitcode == 0, told
    assert "failed, training goes on" not in told
    (version,) = (tmp_path / "run/lightning_logs").iterdir()
    steps = EventAccumulator(str(version)).Reload().Scalars("val_loss")
    assert [event.step for event in steps] == [2]
    assert [path.name for path in (version / "generation_gifs").iterdir()] == ["step_0000002_sample_0.gif"]


@pytest.mark.slow
def test_a_process_that_draws_for_long_is_waited_for(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(strategy: Any) -> None:
        strategy._timeout = timedelta(seconds=2)

    monkeypatch.setattr(command, "allow_unused_parameters", impatient)
    monkeypatch.setattr(Pictures, "draw", lambda *_: time.sleep(4))
    changes = {
        "devices": "2",
        "num_images_to_log": 1,
        "log_images_every_n_steps": 2,
        "plan_width": 0,
        "attributes": None,
    }
    two_processes(lambda: run(tmp_path, corpus, **{**changes, "reveal_share": 0.0, "max_steps": 3}))


@pytest.mark.skipif(os.name != "posix", reason="no SLURM")
def test_a_machine_of_a_slurm_cluster_trains_alone(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    plain = {"plan_width": 0, "attributes": None, "reveal_share": 0.0, "max_steps": 1}
    (row,) = curve(run(tmp_path, corpus, **plain))
    assert {"train_loss", "val_loss"} <= row.keys()


def test_muon_needs_whole_matrices(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--strategy fsdp --optimizer muon: Muon needs whole matrices; use --optimizer"):
        run(tmp_path, corpus, strategy="fsdp", devices="2")
    assert not (tmp_path / "run").exists()


def test_weights_and_biases_is_not_installed(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(
        UserError, match=r"^--logger wandb needs Weights & Biases: pip install 'fractalgen-piano\[wandb\]'"
    ):
        run(tmp_path, corpus, logger="wandb")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_table_goes_on_where_the_run_does(corpus: Path, tmp_path: Path) -> None:
    plain = {"plan_width": 0, "attributes": None, "num_images_to_log": 1, "log_images_every_n_steps": 4}
    version = run(tmp_path, corpus, **plain)
    whole = curve(version)
    pictures = {path.name for path in (version / "pictures").iterdir()}
    assert "val_generated_step_0000004_sample_0.png" in pictures
    (version / "checkpoints/last.ckpt").unlink()
    for later in (version / "checkpoints").glob("step_00000004-*"):
        later.unlink()
    assert run(tmp_path, corpus, **plain, resume="auto") == version
    assert curve(version) == whole
    assert run(tmp_path / "fresh", corpus, **plain, resume="auto", max_steps=1).name == "version_0"
