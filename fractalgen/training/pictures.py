"""Samples that are drawn at validation: animations, pictures and health figures in the log."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from fractalgen import render
from fractalgen.config import RenderConfig, SamplingConfig
from fractalgen.evaluation.health import Reference, health_summary
from fractalgen.features.notes import Crops, crop_tokens, note_statistics, statistics_table
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.trace import Intermediates, Trace
from fractalgen.training.averaging import AveragedWeights
from fractalgen.training.distributed import WaitingRoom, whole_weights
from fractalgen.training.loggers import PictureLog

GIF_FPS = 5.0  # 200 ms a frame


class Pictures(Checkpoint):
    """Samples, their making as animations, real rolls beside them, note statistics of both, and what looks wrong.

    Drawn when a validation runs *and* the optimiser step is a multiple of ``interval``.  No failure in here ends the
    training: each cause is reported once, with its traceback.  The first process draws and the others wait, however
    long it takes.  (A ``Checkpoint`` only because Lightning runs those last: the weights are safe on disk before
    drawing starts.)
    """

    def __init__(self, crops: Crops, interval: int, num_samples: int, seed: int = 0) -> None:
        self.crops = crops
        self.interval = interval
        self.num_samples = num_samples
        self.seed = seed
        self.config = RenderConfig(gif_fps=GIF_FPS)
        self.reported: set[tuple[Any, ...]] = set()
        self.folder = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember the folder: all processes must ask for it, but only the first one draws."""
        assert trainer.log_dir is not None
        self.folder = Path(trainer.log_dir) / "generation_gifs"
        self.waiting_room = WaitingRoom()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw if both conditions hold."""
        step = trainer.global_step
        due = self.num_samples > 0 and step > 0 and step % self.interval == 0
        if not due or trainer.sanity_checking:
            return
        with ExitStack() as stack:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, AveragedWeights):
                    stack.enter_context(callback.in_place(pl_module))
            stack.enter_context(whole_weights(trainer))
            if trainer.is_global_zero:
                with self._report("pictures of samples", step):
                    self.draw(trainer, pl_module.model, step)
        self.waiting_room.wait()

    def draw(self, trainer: Trainer, model: Any, step: int) -> None:
        """Sample, write the GIFs, log everything."""
        log: PictureLog = trainer.logger  # type: ignore[assignment]
        config = model.config
        names = [f"sample_{i}" for i in range(self.num_samples)]

        def tags(kind: str, name: str) -> list[str]:
            """One tag for each step, and one for all steps, which TensorBoard gives a slider."""
            return [f"val/{kind}/step_{step:07d}_{name}", f"val/{kind}/{name}"]

        def log_picture(kind: str, name: str, picture: Image.Image) -> None:
            for tag in tags(kind, name):
                log.log_picture(tag, picture, step)

        def draw_roll(tokens: NDArray[np.uint8]) -> Image.Image:
            roll = PianoRoll(tokens, config.steps_per_quarter, velocity_bins=config.velocity_bins)
            return render.image(roll, self.config)

        real = self.real
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
                gif = self.folder / f"step_{step:07d}_{name}.gif"
                render.save_gif(making, gif, self.config)
                for tag in tags("generation_animation", name):
                    log.log_animation(tag, gif, step)
            with self._report("hierarchical poster", step):
                log_picture("hierarchical_poster", name, render.poster(trace, self.config))
        self.judge(log, step, rolls, traces)

    def judge(self, log: PictureLog, step: int, rolls: NDArray[np.uint8], traces: list[Trace]) -> None:
        """Log and print note statistics of samples and of real rolls, and what looks wrong with the samples."""
        bar = 4 * traces[0].steps_per_quarter
        statistics = {"generated": note_statistics(rolls, bar), "real": note_statistics(self.real, bar)}
        figures = {f"val_notes/{key}_{kind}": value for kind, row in statistics.items() for key, value in row.items()}
        log.log_metrics({name: value for name, value in figures.items() if not np.isnan(value)}, step)
        tqdm.write(f"step {step}:\n{statistics_table(statistics)}", file=sys.stderr)
        with self._report("health of samples", step):
            health, line = health_summary(traces, Reference.of(self.real))
            log.log_metrics({f"val/health/{key}": value for key, value in health.items()}, step)
            if line:  # on one line of its own: the warnings module adds one of source code
                tqdm.write(f"warning: step {step}: {line}", file=sys.stderr)

    def sample(self, model: Any) -> tuple[NDArray[np.uint8], Intermediates]:
        """Samples (n, 128, T) and the record of their making; the same random numbers each time."""
        device = next(model.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(self.seed)
            iterations = model.config.fit_iterations(SamplingConfig.num_iter_list)
            rolls, intermediates = model.sample(self.num_samples, num_iter_list=iterations, return_intermediates=True)
        return rolls.cpu().numpy().astype(np.uint8), intermediates

    @cached_property
    def real(self) -> NDArray[np.uint8]:
        """The validation crops, (n, 128, T)."""
        return crop_tokens(self.crops)

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
