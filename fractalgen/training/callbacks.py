"""Callbacks of a training run: the progress bar and checkpoints."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from tqdm.auto import tqdm

from fractalgen.checkpoint import LAST
from fractalgen.errors import Stopped
from fractalgen.files import replacing


class StepBar(Callback):
    """One bar over all optimiser steps of the run: rate and time left, whatever the accumulation or the resuming."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start where the run continues."""
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            unit="step",
            desc="training",
            disable=not trainer.is_global_zero,
            dynamic_ncols=True,
            smoothing=0.05,
            # a log file gets a line's worth twice a minute, a terminal a live bar
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Advance when an optimiser step was completed."""
        if self.bar is None or trainer.global_step == self.bar.n:
            return
        if trainer.global_step % self.interval == 0:
            shown = {name: f"{value:.3f}" for name, value in getattr(pl_module, "shown", {}).items()}
            self.bar.set_postfix(shown, refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave one line per validation."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val")}
        if self.bar is not None and not self.bar.disable and not trainer.sanity_checking:
            text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            tqdm.write(f"step {trainer.global_step}: {text}", file=sys.stderr)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error has its own line."""
        self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints beside their target and then moves them, so that the previous one stays complete."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to the file ``path``.

        Raises:
            UserError: the disk is full, or the folder cannot be written to.
        """
        content = io.BytesIO()  # torch.save hides the cause where it writes to a disk that is full
        torch.save(checkpoint, content)
        with replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt``: after every validation, every ``minutes`` in between, and when a signal ends the run.

    Lightning's own callback writes its ``last.ckpt`` only together with one of the best ones, so that a run whose
    validation loss has stopped falling could not be resumed from where it is.

    Ctrl-C and SIGTERM (SLURM, ``docker stop``) end the run after the step that is being computed, and after the
    validation that follows it; a second signal ends it at once.
    """

    def __init__(self, validation_interval: int, minutes: float = 10.0) -> None:
        self.validation_interval = validation_interval
        self.seconds = 60 * minutes
        self.saved_step = -1
        self.saved_at = 0.0
        self.signal = 0

    def listen(self) -> None:
        """Take over the signals; Lightning gives them back at the end."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self.stop)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen from here on, unless a resumed run leaves the check out."""
        self.listen()

    def stop(self, signum: int, frame: Any) -> None:
        """Remember a signal; a second signal ends the run at once."""
        if self.signal:
            raise Stopped(signum, "at once; what was trained since the last checkpoint is lost")
        self.signal = signum
        name = signal.Signals(signum).name
        tqdm.write(f"{name}: saving after this step, again to stop at once", file=sys.stderr)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, clear away what a killed run left half-written, start the clock."""
        self.listen()
        folder = self.path(trainer).parent  # collective
        if trainer.is_global_zero:
            for file in folder.glob(".*.ckpt"):
                file.unlink(missing_ok=True)
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save when time is up or to stop, only right after an optimiser step and not where a validation follows."""
        step = trainer.global_step
        if step == self.saved_step or step % self.validation_interval == 0 or step >= trainer.max_steps:
            return
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if batches % trainer.accumulate_grad_batches:
            return
        due, signum = self.of_any_process(trainer, time.monotonic() - self.saved_at > self.seconds, self.signal)
        if due and not signum:
            self.save(trainer)
        self.stop_if_asked(trainer, signum)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        if not trainer.sanity_checking:
            self.save(trainer)
            self.stop_if_asked(trainer, *self.of_any_process(trainer, self.signal))

    def of_any_process(self, trainer: Trainer, *values: int) -> list[int]:
        """The largest values that any process has: saving and stopping are collective, so all must agree on them."""
        if trainer.world_size == 1:
            return list(values)
        mine = torch.tensor(values, dtype=torch.float32, device=trainer.strategy.root_device)
        return [int(value) for value in trainer.strategy.reduce(mine, reduce_op="max").tolist()]

    def stop_if_asked(self, trainer: Trainer, signum: int) -> None:
        """End the run, saved, if a process got a signal."""
        if not signum:
            return
        if self.saved_step != trainer.global_step:
            self.save(trainer)
        raise Stopped(
            signum, f"stopped and saved at step {trainer.global_step}; go on with --resume {self.path(trainer)}"
        )

    def path(self, trainer: Trainer) -> Path:
        """The file."""
        assert trainer.log_dir is not None
        return Path(trainer.log_dir) / "checkpoints" / LAST

    def save(self, trainer: Trainer) -> None:
        """Replace ``last.ckpt``, atomically."""
        trainer.save_checkpoint(self.path(trainer))
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step
