"""The two loaders of a training run: endless random crops, and the fixed validation crops."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from fractalgen.config import TrainConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import CropDataset, ValidCrops
from fractalgen.data.labeller import chosen
from fractalgen.errors import UserError

Batch = dict[str, Tensor]
CROPS, MASKS, VALIDATION = range(3)  # streams of random numbers
GRACE = 60  # seconds that a worker outlives SIGTERM


def stream(*numbers: int) -> int:
    """A seed for the random stream named by non-negative ``numbers``; streams of different names are independent."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def outlive_signals(worker: int) -> None:
    """Ctrl-C, and often SIGTERM, reach the workers as well as the trainer, which decides when they end.

    A worker that is really meant, and not ended by the trainer, ends ``GRACE`` seconds after SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":  # which has no alarm
        signal.signal(signal.SIGTERM, lambda signum, frame: signal.alarm(GRACE))


class SeededCrops(Dataset[Batch]):
    """Random crops as a function of their index: crop 17 of seed 0 is the same in every process and after resuming."""

    def __init__(self, crops: Dataset[Batch], seed: int) -> None:
        self.crops, self.seed = crops, seed

    def __getitem__(self, index: int) -> Batch:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream(self.seed, CROPS, index))
            return self.crops[index % len(self.crops)]  # type: ignore[arg-type]


class Endless(Sampler[int]):
    """The indices ``start + rank``, then every ``world``-th, without end."""

    def __init__(self, start: int, rank: int, world: int) -> None:
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start + self.rank, self.world)


class CropData(pl.LightningDataModule):
    """The two loaders: endless random crops, and the fixed validation crops."""

    def __init__(self, cfg: TrainConfig, corpus: Corpus) -> None:
        super().__init__()
        self.cfg = cfg
        transpose = (cfg.transpose_min, cfg.transpose_max)
        attributes = chosen(corpus, cfg.attributes)
        config = cfg.model_config(corpus.steps_per_quarter)
        columns: dict[str, Any] = {"patch": config.column, "bar_columns": True, "plans": cfg.plan_width > 0}
        crops = CropDataset(corpus, "train", config.crop_length, transpose=transpose, attributes=attributes, **columns)
        self.train_crops = SeededCrops(crops, cfg.seed)
        self.val_crops = ValidCrops(
            corpus, "valid", config.crop_length, limit=cfg.val_crops, attributes=attributes, **columns
        )
        if len(self.val_crops) == 0:
            raise UserError(f"--data {cfg.data}: no validation crop with a note in it (split 'valid')")

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless batches, starting from the crop that the run has reached."""
        trainer = self.trainer
        assert trainer is not None
        batches = trainer.global_step * self.cfg.accumulate_grad_batches
        start = batches * self.cfg.batch_size * trainer.world_size
        return DataLoader(
            self.train_crops,
            self.cfg.batch_size,
            sampler=Endless(start, trainer.global_rank, trainer.world_size),
            num_workers=self.cfg.num_workers,
            worker_init_fn=outlive_signals,
            persistent_workers=self.cfg.num_workers > 0,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation crops of each device; no crop is scored twice."""
        trainer = self.trainer
        assert trainer is not None
        share = range(trainer.global_rank, len(self.val_crops), trainer.world_size)
        return DataLoader(Subset(self.val_crops, share), self.cfg.batch_size)
