"""What watches a training run: the progress bar, ``last.ckpt``, and pictures of what the model composes by now."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from fractalgen import render
from fractalgen.config import RenderConfig, SamplingConfig
from fractalgen.errors import Stopped
from fractalgen.evaluation import note_statistics, statistics_table
from fractalgen.evaluation.health import Reference, health_summary
from fractalgen.files import replacing
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.trace import Intermediates

GIF_FPS = 5.0  # 200 ms a frame


class StepBar(Callback):
    """One bar over all optimiser steps of the run: rate and time left, whatever the accumulation or the resuming."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start where the run goes on."""
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


class AveragedWeights(WeightAveraging):
    """A moving average of the weights: what is validated, drawn and saved as the model, beside the trained weights.

    A step keeps the share ``decay`` of the average, at first less, (1 + n) / (10 + n) after n steps, so that it soon
    forgets the weights that it began with.
    """

    def __init__(self, decay: float) -> None:
        def blend(averages: list[torch.Tensor], weights: list[torch.Tensor], steps: torch.Tensor | int) -> None:
            kept = min(decay, (1 + int(steps)) / (10 + int(steps)))
            torch._foreach_lerp_(averages, weights, 1 - kept)

        super().__init__(multi_avg_fn=blend)

    @contextmanager
    def in_place(self, pl_module: LightningModule) -> Iterator[None]:
        """The averaged weights in the model, for the time of the block."""
        self._swap_models(pl_module)
        try:
            yield
        finally:
            self._swap_models(pl_module)


class WholeFiles(TorchCheckpointIO):
    """Checkpoints are written beside their target and moved over it, so that the one before stays whole till then."""

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
        """Remember a signal; a second one is not waited for."""
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
        due = time.monotonic() - self.saved_at > self.seconds
        # saving is collective: the first process decides for all
        if trainer.strategy.broadcast(due) if trainer.world_size > 1 else due:
            self.save(trainer)
        self.stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        if not trainer.sanity_checking:
            self.save(trainer)
            self.stop_if_asked(trainer)

    def stop_if_asked(self, trainer: Trainer) -> None:
        """End the run, saved, if any process got a signal."""
        asked = torch.tensor(float(self.signal), device=trainer.strategy.root_device)
        signum = int(trainer.strategy.reduce(asked, reduce_op="max")) if trainer.world_size > 1 else self.signal
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
        return Path(trainer.log_dir) / "checkpoints" / "last.ckpt"

    def save(self, trainer: Trainer) -> None:
        """Replace ``last.ckpt``, atomically."""
        trainer.save_checkpoint(self.path(trainer))
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step


class Pictures(Checkpoint):
    """Samples, their making as animations, real rolls beside them, note statistics of both, and what looks wrong.

    Drawn when a validation runs *and* the optimiser step is a multiple of ``interval``.  No failure in here ends the
    training: each cause is reported once, with its traceback.  (A ``Checkpoint`` only because Lightning runs those
    last: the weights are safe on disk before drawing starts.)
    """

    def __init__(self, crops: Dataset[dict[str, torch.Tensor]], interval: int, num_samples: int, seed: int = 0) -> None:
        self.crops = crops
        self.interval = interval
        self.num_samples = num_samples
        self.seed = seed
        self.config = RenderConfig()
        self.reported: set[tuple[Any, ...]] = set()
        self._real: NDArray[np.uint8] | None = None
        self.folder = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember the folder: asking for it is collective, and drawing is the first process's business alone."""
        assert trainer.log_dir is not None
        self.folder = Path(trainer.log_dir) / "generation_gifs"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw if both conditions hold."""
        step = trainer.global_step
        due = self.num_samples > 0 and step > 0 and step % self.interval == 0
        if due and trainer.is_global_zero and not trainer.sanity_checking:
            with ExitStack() as stack:
                stack.enter_context(self._report("pictures of samples", step))
                for callback in trainer.callbacks:  # type: ignore[attr-defined]
                    if isinstance(callback, AveragedWeights):
                        stack.enter_context(callback.in_place(pl_module))
                self.draw(trainer, pl_module.model, step)

    def draw(self, trainer: Trainer, model: Any, step: int) -> None:
        """Sample, write the GIFs, log everything to TensorBoard."""
        assert trainer.logger is not None
        board = trainer.logger.experiment  # type: ignore[attr-defined]
        config = model.config
        names = [f"step_{step:07d}_sample_{i}" for i in range(self.num_samples)]

        def tags(kind: str, name: str) -> list[str]:
            """One tag for each step, and one for all steps, which TensorBoard gives a slider."""
            return [f"val/{kind}/{name}", f"val/{kind}/{name.removeprefix(f'step_{step:07d}_')}"]

        def log_picture(kind: str, name: str, picture: Image.Image) -> None:
            for tag in tags(kind, name):
                board.add_image(tag, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

        def draw_roll(tokens: NDArray[np.uint8]) -> Image.Image:
            roll = PianoRoll(tokens, config.steps_per_quarter, velocity_bins=config.velocity_bins)
            return render.image(roll, self.config)

        real = self.real_rolls()
        chosen = np.linspace(0, len(real) - 1, min(self.num_samples, len(real))).round().astype(int)
        for name, tokens in zip(names, real[chosen], strict=False):
            with self._report("ground truth", step):
                log_picture("ground_truth", name, draw_roll(tokens))

        rolls, intermediates = self.sample(model)
        here = {"steps_per_quarter": config.steps_per_quarter}
        traces = [replace(trace, settings={**trace.settings, **here}) for trace in intermediates.traces]
        for name, tokens, trace in zip(names, rolls, traces, strict=True):
            with self._report("roll", step):
                log_picture("generated", name, draw_roll(tokens))
            with self._report("generation GIF", step):
                making = trace.frames()
                log_picture("generation_preview", name, render.image(making[-1], self.config))
                self.folder.mkdir(exist_ok=True)
                gif = self.folder / f"{name}.gif"
                render.save_gif(making, gif, self.config, fps=GIF_FPS)
                # TensorBoard's writer has no public way to add a summary that is already encoded
                for tag in tags("generation_animation", name):
                    board._get_file_writer().add_summary(animation_summary(tag, gif), step)
            with self._report("hierarchical poster", step):
                log_picture("hierarchical_poster", name, render.poster(trace, self.config))

        bar = 4 * config.steps_per_quarter
        statistics = {"generated": note_statistics(rolls, bar), "real": note_statistics(real, bar)}
        for kind, values in statistics.items():
            for key, value in values.items():
                if not np.isnan(value):
                    board.add_scalar(f"val_notes/{key}_{kind}", value, step)
        tqdm.write(f"step {step}:\n{statistics_table(statistics)}", file=sys.stderr)
        with self._report("health of samples", step):
            health, line = health_summary(traces, Reference.of(real))
            for key, value in health.items():
                board.add_scalar(f"val/health/{key}", value, step)
            if line:  # on one line of its own: the warnings module adds one of source code
                tqdm.write(f"warning: step {step}: {line}", file=sys.stderr)

    def sample(self, model: Any) -> tuple[NDArray[np.uint8], Intermediates]:
        """Samples (n, 128, T) and the record of their making; the same random numbers each time."""
        settings = SamplingConfig()
        device = next(model.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(self.seed)
            rolls, intermediates = model.sample(
                batch_size=self.num_samples,
                cond_list=None,
                num_iter_list=list(model.config.fit_iterations(settings.num_iter_list)),
                cfg=settings.cfg,
                cfg_schedule=settings.cfg_schedule,
                temperature=settings.temperature,
                filter_threshold=settings.filter_threshold,
                return_intermediates=True,
            )
        return rolls.cpu().numpy().astype(np.uint8), intermediates

    def real_rolls(self) -> NDArray[np.uint8]:
        """The validation crops, (n, 128, T)."""
        if self._real is None:
            count = len(self.crops)  # type: ignore[arg-type]
            self._real = np.stack([self.crops[i]["tokens"].numpy().astype(np.uint8) for i in range(count)])
        return self._real

    @contextmanager
    def _report(self, what: str, step: int) -> Iterator[None]:
        """Turn a failure into a warning with its traceback, once per cause."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever it is, a picture is not worth a training run)
            place = traceback.extract_tb(error.__traceback__)[-1]
            cause = (type(error), place.filename, place.lineno)
            if cause not in self.reported:
                self.reported.add(cause)
                text = "".join(traceback.format_exception(error))
                warnings.warn(f"step {step}: {what} failed, training goes on\n{text}", RuntimeWarning, stacklevel=2)


def animation_summary(tag: str, path: Path) -> Summary:
    """A GIF file as TensorBoard's image tab plays it (``add_image`` writes stills only)."""
    with Image.open(path) as gif:
        width, height = gif.size
    picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
    return Summary(value=[Summary.Value(tag=tag, image=picture)])
