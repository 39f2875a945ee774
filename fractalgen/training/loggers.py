"""Where figures and pictures of a run go: TensorBoard, a CSV file, or Weights & Biases."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from fractalgen.config import TrainConfig
from fractalgen.errors import missing


class EventLog(TensorBoardLogger):
    """TensorBoard events in the run folder, without the empty ``hparams.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        """Write pending events."""
        self.experiment.flush()

    def log_picture(self, tag: str, picture: Image.Image, step: int) -> None:
        """A picture of the image tab."""
        self.experiment.add_image(tag, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def log_animation(self, tag: str, gif: Path, step: int) -> None:
        """An animation of the image tab."""
        # TensorBoard's writer has no public way to add a summary that is already encoded
        self.experiment._get_file_writer().add_summary(animation_summary(tag, gif), step)


class TableLog(CSVLogger):
    """``metrics.csv`` and ``pictures/`` in the run folder; a run that continues at ``step`` continues its table."""

    def __init__(self, run_dir: str, version: str, step: int) -> None:
        super().__init__(run_dir, name="lightning_logs", version=version, flush_logs_every_n_steps=1)
        self.step = step

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Lightning's writer, which would begin the table anew."""
        if self._experiment is not None:
            return self._experiment
        file, rows = Path(self.log_dir, "metrics.csv"), []
        if file.is_file():
            with file.open(newline="", encoding="utf-8") as table:
                rows = [row for row in csv.DictReader(table) if int(row["step"]) <= self.step]
        writer = super().experiment
        writer.metrics += [{name: value for name, value in row.items() if value} for row in rows]
        writer.save()
        return writer

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They stand in ``config.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        """Write pending rows."""
        self.experiment.save()

    def log_picture(self, tag: str, picture: Image.Image, step: int) -> None:
        """A PNG file."""
        file = Path(self.log_dir, "pictures", f"{tag.replace('/', '_')}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)

    def log_animation(self, tag: str, gif: Path, step: int) -> None:
        """The file is enough."""


class OnlineLog(WandbLogger):
    """A run of Weights & Biases, whose files lie in the run folder; WANDB_MODE=offline keeps them there."""

    def __init__(self, run_dir: str, version: str) -> None:
        folder = Path(run_dir, "lightning_logs", version)
        before = sorted(folder.glob("wandb/*run-*"))  # the folder of a run ends with its name
        name = before[-1].name.rsplit("-", 1)[1] if before else None
        settings: dict[str, Any] = {"project": "fractalgen", "name": Path(run_dir).name, "id": name, "resume": "allow"}
        super().__init__(save_dir=folder, **settings)

    def log_picture(self, tag: str, picture: Image.Image, step: int) -> None:
        """A picture."""
        self.log_image(tag, [picture], step)

    def log_animation(self, tag: str, gif: Path, step: int) -> None:
        """A GIF as a video."""
        self.log_video(tag, [str(gif)], step, format=["gif"])


PictureLog = EventLog | TableLog | OnlineLog
"""The loggers of a run, which take pictures, too."""


def animation_summary(tag: str, path: Path) -> Summary:
    """A GIF file as TensorBoard's image tab plays it (``add_image`` writes stills only)."""
    with Image.open(path) as gif:
        width, height = gif.size
    picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
    return Summary(value=[Summary.Value(tag=tag, image=picture)])


def next_version(run_dir: str) -> str:
    """The name of a new folder in ``lightning_logs`` of the run folder: ``version_0``, ``version_1`` ..."""
    numbers = [folder.name.removeprefix("version_") for folder in Path(run_dir, "lightning_logs").glob("version_*")]
    return f"version_{1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)}"


def logger_of(cfg: TrainConfig, version: str, step: int) -> Logger:
    """The logger that ``--logger`` names, for a run that continues at ``step`` in the folder ``version``.

    Raises:
        UserError: it is not installed.
    """
    if cfg.logger == "csv":
        return TableLog(cfg.run_dir, version, step)
    if cfg.logger == "wandb":
        try:
            return OnlineLog(cfg.run_dir, version)
        except ModuleNotFoundError as error:
            raise missing("--logger wandb", "Weights & Biases", "wandb") from error
    # hide from TensorBoard what a run logged after the checkpoint that it continues from
    purge: dict[str, Any] = {"purge_step": step + 1} if step else {}
    return EventLog(cfg.run_dir, name="lightning_logs", version=version, default_hp_metric=False, **purge)
