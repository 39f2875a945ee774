"""Where figures and pictures of a run go: TensorBoard, a CSV file, or Weights & Biases."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from fractalgen.config import TrainConfig
from fractalgen.errors import missing
from fractalgen.files import replacing


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
    """``metrics.csv`` and ``pictures/`` in the run folder; a run that continues at ``step`` continues its table.

    The table has one row for each step.  (Lightning's own has one for each call, and columns by the alphabet.)
    """

    def __init__(self, run_dir: str, version: str, step: int) -> None:
        super().__init__(run_dir, name="lightning_logs", version=version)
        self.file = Path(self.log_dir, "metrics.csv")
        self.begin = step
        self.columns: dict[str, None] = {}
        self.last: int | None = None  # step of the last row

    @property
    def experiment(self) -> None:
        """Nothing: Lightning's writer would delete the table of the previous run."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a row, or write the table anew where figures join the last row or bring new columns."""
        assert step is not None  # Lightning counts them
        row = {"step": step, **metrics}
        if step != self.last and row.keys() <= self.columns.keys():
            with self.file.open("a", newline="", encoding="utf-8") as table:
                csv.DictWriter(table, list(self.columns)).writerow(row)
        else:
            rows = self.rows()
            rows[step] = rows.get(step, {}) | row
            self.columns = dict.fromkeys(name for row in rows.values() for name in row)
            with replacing(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as table:
                writer = csv.DictWriter(table, list(self.columns))
                writer.writeheader()
                writer.writerows(rows.values())
        self.last = step

    def rows(self) -> dict[int, dict[str, Any]]:
        """The table by step, cells that are empty left out.

        The first time, before this run has logged, it ends with the step at which this run continues.
        """
        rows: dict[int, dict[str, Any]] = {}
        if self.file.is_file():
            with self.file.open(newline="", encoding="utf-8") as table:
                for row in csv.DictReader(table):
                    with suppress(KeyError, TypeError, ValueError):  # a row that was cut short
                        step = int(row["step"])
                        rows[step] = rows.get(step, {}) | {name: value for name, value in row.items() if name and value}
        return {step: row for step, row in rows.items() if self.last is not None or step <= self.begin}

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They stand in ``config.yaml``."""

    def save(self) -> None:
        """Every row is written at once."""

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
