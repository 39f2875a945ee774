"""The two loaders of a training run: endless random crops, and the fixed validation crops."""

from __future__ import annotations

import itertools
import math
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fractalgen.config import TrainConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import CropDataset, ValidCrops
from fractalgen.data.labeller import chosen
from fractalgen.errors import UserError
from fractalgen.model.masking import drop_labels, drop_plans, random_known
from fractalgen.model.plans import Plans
from fractalgen.seeds import stream

Batch = dict[str, Any]
"""Tensors by name, of one crop or of a batch; and ``told``, the same of what a training step shows the model."""
CROPS, MASKS, VALIDATION, HIDDEN = range(4)  # streams of random numbers
KEY_TOLD = 0.8  # share of the training crops whose plans are drawn in a given key
GRACE = 60  # seconds that a worker outlives SIGTERM


def outlive_signals(worker: int) -> None:
    """Ctrl-C, and often SIGTERM, reach the workers as well as the trainer, which decides when they end.

    A worker that is really meant, and not ended by the trainer, ends ``GRACE`` seconds after SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":  # which has no alarm
        signal.signal(signal.SIGTERM, lambda signum, frame: signal.alarm(GRACE))


@dataclass(frozen=True)
class Hide:
    """Decides at random what a training step tells the model of a crop, see :mod:`fractalgen.model.masking`.

    ``told`` of the result holds ``known`` cells (128, T) if ``reveal_share`` is more than 0, ``labels`` and, where the
    crop has a plan, the parts of the plan and ``labels_of_plan``, given which the planner is trained.
    """

    reveal_share: float
    label_dropout: float

    def __call__(self, crop: Batch) -> Batch:
        """The crop with ``told``; from torch's global random numbers."""
        one = {name: value[None] for name, value in crop.items()}  # a batch of one
        told: dict[str, Tensor] = {}
        if self.reveal_share > 0:
            told["known"] = random_known(one["tokens"], self.reveal_share, one.get("voices"))
        labels = list(one["labels"].unbind(1))
        told["labels"] = torch.stack(drop_labels(labels, self.label_dropout), 1) if labels else one["labels"]
        plans = Plans.of(one)
        if plans is not None:
            plans = drop_plans(plans, self.label_dropout)
            told |= {"chords": plans.chords, "back": plans.back, "left": plans.left}
            told["labels_of_plan"] = one["labels"] * (torch.rand(1, 1) < KEY_TOLD)
        return {**crop, "told": {name: value[0] for name, value in told.items()}}


class SeededCrops(Dataset[Batch]):
    """Random crops as a function of their index: crop 17 of seed 0 is the same in every process and after resuming.

    ``hide`` adds what a training step tells the model of a crop, which is a function of the index, too.
    """

    def __init__(self, crops: Dataset[Batch], seed: int, hide: Callable[[Batch], Batch] | None = None) -> None:
        self.crops, self.seed, self.hide = crops, seed, hide

    def __getitem__(self, index: int) -> Batch:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream(self.seed, CROPS, index))
            crop = self.crops[index % len(self.crops)]  # type: ignore[arg-type]
            if self.hide is None:
                return crop
            torch.default_generator.manual_seed(stream(self.seed, HIDDEN, index))
            return self.hide(crop)


class Endless(Sampler[int]):
    """The indices ``start + rank``, then every ``world``-th, without end."""

    def __init__(self, start: int, rank: int, world: int) -> None:
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start + self.rank, self.world)


class EqualShare(Dataset[Batch]):
    """The validation crops of one of ``world`` processes: ``rank``, ``rank + world`` ...

    All processes get the same number, because they validate in step: where there are too few crops some begin again,
    and ``counted`` is false for those.
    """

    def __init__(self, crops: Dataset[Batch], rank: int, world: int) -> None:
        self.crops, self.rank, self.world = crops, rank, world

    def __len__(self) -> int:
        return math.ceil(len(self.crops) / self.world)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> Batch:
        index, count = self.rank + number * self.world, len(self.crops)  # type: ignore[arg-type]
        return {**self.crops[index % count], "counted": torch.tensor(index < count)}


class CropData(pl.LightningDataModule):
    """The two loaders: endless random crops, and the fixed validation crops.

    A run that continues at optimiser step ``step`` has seen ``crops_before`` crops.
    """

    def __init__(self, cfg: TrainConfig, corpus: Corpus) -> None:
        super().__init__()
        self.cfg = cfg
        self.step, self.crops_before = 0, 0
        transpose = (cfg.transpose_min, cfg.transpose_max)
        attributes = chosen(corpus, cfg.attributes)
        config = cfg.model_config(corpus.steps_per_quarter)
        columns: dict[str, Any] = {"patch": config.column, "bar_columns": True, "plans": cfg.plan_width > 0}
        crops = CropDataset(corpus, "train", config.crop_length, transpose=transpose, attributes=attributes, **columns)
        self.train_crops = SeededCrops(crops, cfg.seed, Hide(cfg.reveal_share, cfg.label_dropout))
        self.val_crops = ValidCrops(
            corpus, "valid", config.crop_length, limit=cfg.val_crops, attributes=attributes, **columns
        )
        if len(self.val_crops) == 0:
            raise UserError(f"--data {cfg.data}: no note in the songs of split 'valid'; prepare it again with others")

    def crops_per_step(self) -> int:
        """Crops of an optimiser step, of all devices."""
        assert self.trainer is not None
        return self.cfg.batch_size * self.cfg.accumulate_grad_batches * self.trainer.world_size

    def crops_seen(self) -> int:
        """Crops that the run has trained on."""
        assert self.trainer is not None
        return self.crops_before + (self.trainer.global_step - self.step) * self.crops_per_step()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless batches, starting from the crop that the run has reached."""
        trainer = self.trainer
        assert trainer is not None
        return DataLoader(
            self.train_crops,
            self.cfg.batch_size,
            sampler=Endless(self.crops_seen(), trainer.global_rank, trainer.world_size),
            num_workers=self.cfg.num_workers,
            worker_init_fn=outlive_signals,
            persistent_workers=self.cfg.num_workers > 0,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation crops of each device; no crop counts twice."""
        trainer = self.trainer
        assert trainer is not None
        share = EqualShare(self.val_crops, trainer.global_rank, trainer.world_size)
        return DataLoader(share, self.cfg.batch_size)
