"""How probable note events are in excerpts of music: scores of :class:`benchmarks.note_events.NoteEventTransformer`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.note_events import KINDS, NoteEventTransformer
from fractalgen.config import Precision
from fractalgen.data.crops import Item, ValidCrops
from fractalgen.devices import autocast
from fractalgen.evaluation.statistics import ratio_error
from fractalgen.music.tokens import ONSET


@dataclass(frozen=True)
class Scores:
    """Negative log-likelihoods (nats) of crops by token kind, (crops, 4), with the songs and notes (onsets) of each."""

    nats: np.ndarray
    notes: np.ndarray
    songs: np.ndarray

    @property
    def bits_per_note(self) -> float:
        """Bits of all crops over notes of all crops."""
        return float(self.nats.sum() / math.log(2) / self.notes.sum())

    @property
    def stderr(self) -> float:
        """Standard error of :attr:`bits_per_note` over songs; NaN when there is only one."""
        return ratio_error(self.nats.sum(1) / math.log(2), self.notes, self.songs)

    def summary(self) -> dict[str, Any]:
        """Plain numbers, for a JSON file."""
        parts = self.nats.sum(0) / math.log(2) / self.notes.sum()
        stderr = self.stderr
        return {
            "bits_per_note": self.bits_per_note,
            "stderr": None if math.isnan(stderr) else stderr,
            "nll_nats_per_crop": float(self.nats.sum(1).mean()),
            "notes": int(self.notes.sum()),
            "crops": len(self.notes),
            "songs": len(np.unique(self.songs)),
            "kinds": dict(zip(KINDS, parts.tolist(), strict=True)),
        }


def real_steps(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Rolls (b, 128, T) of excerpts and how many steps each has: without those that do not exist, silent behind them.

    ``items``: see :class:`fractalgen.data.crops.Excerpts`.
    """
    rolls = torch.stack([torch.zeros_like(item["tokens"]) for item in items])
    steps = []
    for roll, item in zip(rolls, items, strict=True):
        tokens = item["tokens"]
        if "absent" in item:
            tokens = tokens[:, ~item["absent"]]
        roll[:, : tokens.shape[1]] = tokens
        steps.append(tokens.shape[1])
    return rolls, torch.tensor(steps)


def score(
    model: NoteEventTransformer,
    crops: ValidCrops,
    batch_size: int = 4,
    precision: Precision = "32",
    quiet: bool = False,
) -> Scores:
    """Score every crop of ``crops``, in that arithmetic; steps that do not exist are left out."""
    batches = range(0, len(crops), batch_size)
    nats, notes = [], []
    was_training = model.training
    model.eval()
    with torch.no_grad(), autocast(precision, model.start.device):
        for first in tqdm(batches, desc="scoring", unit="batch", leave=False, disable=quiet):
            rolls, steps = real_steps([crops[i] for i in range(first, min(first + batch_size, len(crops)))])
            terms = model.nll(rolls, steps)
            nats.append(torch.stack([terms[kind] for kind in KINDS], 1).double().cpu().numpy())
            notes.append((rolls >= ONSET).sum((1, 2)).numpy())
    model.train(was_training)
    songs = np.array([song for song, _ in crops.crops])
    return Scores(np.concatenate(nats), np.concatenate(notes), songs)
