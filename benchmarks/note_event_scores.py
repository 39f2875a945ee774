"""How probable note events are in excerpts of music: scores of :class:`benchmarks.note_events.NoteEventTransformer`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.note_events import NoteEventTransformer
from fractalgen.config import Precision
from fractalgen.data.crops import Item, ValidCrops
from fractalgen.devices import autocast
from fractalgen.evaluation.likelihood import Scores
from fractalgen.music.tokens import ONSET


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
    parts = []
    was_training = model.training
    model.eval()
    with torch.no_grad(), autocast(precision, model.start.device):
        for first in tqdm(range(0, len(crops), batch_size), desc="scoring", unit="batch", leave=False, disable=quiet):
            own = slice(first, min(first + batch_size, len(crops)))
            rolls, steps = real_steps([crops[i] for i in range(own.start, own.stop)])
            nats = {kind: values.double().cpu().numpy() for kind, values in model.nll(rolls, steps).items()}
            notes, cells = (rolls >= ONSET).sum((1, 2)).double().numpy(), (steps * rolls.shape[1]).double().numpy()
            songs = np.array([song for song, _ in crops.crops[own]])
            terms = {f"notes/{kind}": values for kind, values in nats.items()}
            parts.append(Scores(terms, nats, notes, cells, songs, exact=True))
    model.train(was_training)
    return Scores.cat(parts)
