"""Whatever ends a training, what it had learned is on the disk, and resuming goes on to the same end."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fractalgen import cli, files
from fractalgen.__main__ import main
from fractalgen.checkpoint import read_checkpoint
from fractalgen.config import TrainConfig
from fractalgen.errors import UserError
from fractalgen.training import callbacks
from fractalgen.training.command import train
from tests import tiny
from tests.training.checkpoints import same_state

STEPS = 40


def every_step() -> None:
    """Save ``last.ckpt`` after every step, so that a kill may fall into the writing."""
    callbacks.LastCheckpoint.__init__.__defaults__ = (0.0,)


def settings(data: str, output_dir: str, resume: str = "") -> TrainConfig:
    return tiny.train_config(
        Path(),
        data=data,
        output_dir=output_dir,
        resume=resume or None,
        max_steps=STEPS,
        num_images_to_log=0,
        val_check_interval_steps=10,
        num_workers=1,
        keep_checkpoints=1,
    )


def command(data: str, output_dir: str, resume: str, log: str) -> None:
    """The command in a process of its own, as a terminal starts it; what it prints goes to ``log``."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # for its own workers, as if it were no worker itself
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    every_step()
    warnings.simplefilter("ignore")
    cli.parse = lambda arguments: (cli.COMMANDS["train"], settings(data, output_dir, resume))
    sys.exit(main(["train"]))


class Training:
    """A training in a process of its own, which has the large libraries already."""

    def __init__(self, data: Path, folder: Path, resume: bool) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / "log"
        arguments = (str(data), str(folder), str(folder) if resume else "", str(self.log))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.training.test_stopping"])
        self.process = context.Process(target=command, args=arguments)
        self.process.start()

    def end(self) -> tuple[int, str]:
        """Its exit status and what it printed, when it has ended."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode, self.log.read_text(encoding="utf-8")


def last(folder: Path) -> Path:
    return folder / "lightning_logs/version_0/checkpoints/last.ckpt"


def wait_for(what: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def straight(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    train(settings(str(corpus), str(folder)))
    return last(folder)


def interrupt(training: Training, folder: Path, signum: signal.Signals, delay: float) -> tuple[int, str]:
    """Send a signal ``delay`` seconds after the first checkpoint of this process: its status and what it had to say."""
    pid = training.process.pid
    assert pid is not None
    before = last(folder).stat().st_mtime_ns if last(folder).exists() else 0
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for(
        lambda: (last(folder).exists() and last(folder).stat().st_mtime_ns != before) or not training.process.is_alive()
    )
    workers = children.read_text(encoding="utf-8").split() if children.exists() else []
    time.sleep(delay)
    if signum == signal.SIGKILL:
        training.process.kill()
    else:  # as a terminal or a job scheduler does: to the workers as well
        os.killpg(pid, signum)
    ended = training.end()
    # workers end with their parent, which may have been killed
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    return ended


@pytest.mark.slow
def test_stopped_and_killed_it_goes_on_to_the_same_end(corpus: Path, straight: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    interrupt(Training(corpus, folder, False), folder, signal.SIGKILL, 0.1)
    steps = [read_checkpoint(last(folder))[0]["step"]]
    for signum, expected in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        status, errors = interrupt(Training(corpus, folder, True), folder, signum, 0)
        assert status == expected, errors
        assert "Traceback" not in errors
        steps.append(read_checkpoint(last(folder))[0]["step"])
        end = errors.strip().splitlines()[-1]
        assert f"{signum.name}: stopped and saved at step {steps[-1]}; go on with --resume {last(folder)}" in end
    assert 0 < steps[0] < steps[1] < steps[2] < STEPS
    status, errors = Training(corpus, folder, True).end()
    assert status == 0, errors
    assert same_state(last(folder), straight)
    assert not list(last(folder).parent.glob(".*"))


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoint_before(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = files._flush

    def full(path: Path) -> None:
        if path.suffix == ".ckpt" and last(tmp_path / "run").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    monkeypatch.setattr(files, "_flush", full)
    others = set(multiprocessing.active_children())
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/run/lightning_logs/version_0/checkpoints")) as error:
        train(settings(str(corpus), str(tmp_path / "run")))
    assert "No space left on device" in str(error.value)
    assert "\n" not in str(error.value)
    assert set(multiprocessing.active_children()) <= others  # for which the process would wait
    assert read_checkpoint(last(tmp_path / "run"))[0]["step"] == 10
    assert not list(last(tmp_path / "run").parent.glob(".*"))


@pytest.mark.slow
def test_resuming_takes_the_newest_whole_checkpoint_of_a_folder(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fractalgen.training.resume import newest_whole

    train(settings(str(corpus), str(tmp_path / "run")))
    newest = last(tmp_path / "run")
    assert newest_whole(tmp_path / "run") == newest
    newest.write_bytes(newest.read_bytes()[:-5000])
    (best,) = newest.parent.glob("step_*")
    assert newest_whole(tmp_path / "run") == best
    assert str(newest) in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no complete checkpoint"):
        newest_whole(tmp_path / "empty")
