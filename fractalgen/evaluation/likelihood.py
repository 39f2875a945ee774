"""The negative log-likelihood of real music, in several units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

from fractalgen.config import MarOrder, Precision, SamplingConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import Excerpts, ValidCrops
from fractalgen.devices import autocast
from fractalgen.errors import UserError
from fractalgen.features.statistics import ratio_error
from fractalgen.model.plans import Plans
from fractalgen.music.tokens import ONSET

if TYPE_CHECKING:
    from fractalgen.model.network import FractalNetwork

Floats = npt.NDArray[np.float64]


def check_fits(corpus: Corpus, data: str, model: FractalNetwork) -> None:
    """Refuse a corpus, ``--data``, of other tokens or another grid than the model's.

    Raises:
        UserError: names both values.
    """
    for name in ("velocity_bins", "steps_per_quarter"):
        here, there = getattr(corpus, name), getattr(model.config, name)
        if here != there:
            raise UserError(f"--data {data}: {name} {here}, {model.checkpoint_id} has {there}")


class Window(NamedTuple):
    """An excerpt of a song from step ``start`` on, of which the model steps ``begin`` to ``end`` are scored."""

    song: int
    start: int
    begin: int
    end: int


def crop_windows(crops: ValidCrops) -> list[Window]:
    """Crops on their own, as in training: what came before is not known; silence fills the last crop of a song."""
    return [Window(song, start, 0, crops.crop_length) for song, start in crops.crops]


def sliding_windows(excerpts: Excerpts, songs: Sequence[int], stride: int) -> list[Window]:
    """Whole songs, each step once: windows that move on by ``stride``, all but its last steps known from before.

    The first window of a song scores all it holds.  Nothing beyond the end of a song is scored.  Windows and the
    steps that they score begin with columns: bars where the model has bar columns, else multiples of the patch from
    the song's first downbeat.
    """
    corpus, patch, columns = excerpts.corpus, excerpts.patch, excerpts.width // excerpts.patch
    found = []
    for song in songs:
        if excerpts.bar_columns:
            starts = excerpts.outline(song).layout.starts
        else:
            starts = np.arange(int(corpus.downbeats(song)[0]), corpus.num_steps(song), patch)
        done = 0
        while done < len(starts):
            target = min(done + (stride // patch if done else columns), len(starts))
            first = max(0, target - columns)
            start, end = int(starts[first]), (target - first) * patch
            if not excerpts.bar_columns:  # a column that is not full ends with the song
                end = min(end, corpus.num_steps(song) - start)
            found.append(Window(song, start, (done - first) * patch, end))
            done = target
    return found


@dataclass(frozen=True)
class Scores:
    """Negative log-likelihoods (nats) of windows: (windows, terms) and, the same sum cut otherwise, (windows, kinds).

    ``notes`` and ``cells`` count the onsets and the cells that were scored, ``songs`` says whose windows they are.
    ``plans``: what the plans cost that the music was scored under, if it was.
    """

    terms: dict[str, Floats]
    kinds: dict[str, Floats]
    notes: Floats
    cells: Floats
    songs: npt.NDArray[np.int64]
    exact: bool
    plans: dict[str, Floats] = field(default_factory=dict)

    @classmethod
    def cat(cls, parts: Sequence[Scores]) -> Scores:
        """Several batches of windows as one; silent ones lack the terms of levels that were never visited."""

        def table(columns: Sequence[dict[str, Floats]]) -> dict[str, Floats]:
            names = sorted({name for some in columns for name in some})
            silent = [np.zeros(len(part.songs)) for part in parts]
            pairs = list(zip(columns, silent, strict=True))
            return {name: np.concatenate([some.get(name, zeros) for some, zeros in pairs]) for name in names}

        return cls(
            terms=table([part.terms for part in parts]),
            kinds=table([part.kinds for part in parts]),
            notes=np.concatenate([part.notes for part in parts]),
            cells=np.concatenate([part.cells for part in parts]),
            songs=np.concatenate([part.songs for part in parts]),
            exact=parts[-1].exact,
            plans=table([part.plans for part in parts]),
        )

    @property
    def nats(self) -> Floats:
        """NLL of each window."""
        return np.sum(list(self.terms.values()), axis=0)

    def per_note(self, nats: Floats) -> dict[str, Any]:
        """Bits per note of nats (windows,), and their standard error over songs; None where there are none, or one."""
        notes, error = self.notes.sum(), ratio_error(nats / math.log(2), self.notes, self.songs)
        return {
            "bits_per_note": float(nats.sum()) / math.log(2) / notes if notes else None,
            "stderr": None if math.isnan(error) else error,
        }

    def summary(self, pitches: int = 128) -> dict[str, Any]:
        """Plain numbers for a JSON file; parts are in bits per note.  What does not exist is None."""
        nats, notes, cells = self.nats, self.notes.sum(), self.cells.sum()
        unit = math.log(2) * notes if notes else math.nan
        total = float(nats.sum())
        levels: dict[str, dict[str, float]] = {}
        for name, values in self.terms.items():
            level, part = name.split("/")
            entry = levels.setdefault(level, {"bits_per_note": 0.0, "nats_per_crop": 0.0})
            entry[part] = float(values.sum()) / unit
            entry["bits_per_note"] += entry[part]
            entry["nats_per_crop"] += float(values.mean())
        figures = {
            "exact": self.exact,
            **self.per_note(nats),
            "bits_per_cell": total / math.log(2) / cells,
            "nats_per_cell": total / cells,
            "nats_per_frame": total / cells * pitches,
            "nats_per_note": total / unit * math.log(2),
            "nll_nats_per_crop": total / len(nats),
            "notes": int(notes),
            "frames": int(cells / pitches),
            "crops": len(nats),
            "songs": len(np.unique(self.songs)),
            "levels": levels,
            "kinds": {kind: float(values.sum()) / unit for kind, values in self.kinds.items()},
        }
        return {name: None if value != value else value for name, value in figures.items()}


def plan_summary(scores: Scores) -> dict[str, Any]:
    """Bits per note of music given its plan, of the plan, and of both together."""
    parts = {"bits_per_note": scores.nats, **scores.plans}
    both = scores.per_note(np.sum(list(parts.values()), axis=0))
    return {
        **{name: scores.per_note(nats)["bits_per_note"] for name, nats in parts.items()},
        "with_plan": both["bits_per_note"],
        "stderr_with_plan": both["stderr"],
    }


@torch.no_grad()
def score(
    model: FractalNetwork,
    corpus: Corpus,
    windows: Sequence[Window],
    *,
    batch_size: int = 8,
    num_iter_list: Sequence[int] | None = None,
    mar_order: MarOrder = SamplingConfig.mar_order,
    seed: int = 0,
    precision: Precision = "32",
    quiet: bool = False,
    given_plan: bool = False,
) -> Scores:
    """Score windows of a corpus: exact for AR; for MAR see :meth:`fractalgen.model.network.FractalNetwork.nll`.

    The steps before the scored ones are known cells, the steps after them (the end of a song) too.  ``seed`` sets
    the random orders of MAR levels.  ``given_plan``: the plan of each window is told, and what it costs is scored.
    A window of which nothing is known has the plan of a piece that begins there: no bar comes back from before it.  In
    the others, bars may come back from before the window, and the plan of the known columns costs nothing.  Velocities
    that mean nothing are not scored, see :class:`.Song`.
    """
    config = model.config
    excerpts = Excerpts(
        corpus, config.crop_length, patch=config.column, bar_columns=config.bar_columns, plans=given_plan
    )
    torch.manual_seed(seed)
    parts = []
    context = autocast(precision, model.device)
    with tqdm(total=len(windows), desc="scoring", unit="crop", dynamic_ncols=True, disable=quiet) as bar, context:
        for first in range(0, len(windows), batch_size):
            parts.append(_scored(model, excerpts, windows[first : first + batch_size], num_iter_list, mar_order))
            bar.update(len(parts[-1].songs))
    return Scores.cat(parts)


def _scored(
    model: FractalNetwork,
    excerpts: Excerpts,
    batch: Sequence[Window],
    num_iter_list: Sequence[int] | None,
    mar_order: MarOrder,
) -> Scores:
    """Scores of windows that are computed together."""
    column, step = model.config.column, np.arange(model.config.crop_length)
    items = default_collate([excerpts(w.song, w.start, alone=w.begin == 0) for w in batch])
    tokens, absent, plans = items["tokens"], items.get("absent"), Plans.of(items)
    scored = np.stack([(step >= w.begin) & (step < w.end) for w in batch])
    rolls = tokens.to(model.device)
    known = None if scored.all() else torch.from_numpy(~scored).to(model.device)[:, None].expand_as(rolls)
    if absent is not None:
        scored &= ~absent.numpy()
        absent = absent.to(model.device)
    planned: dict[str, Tensor] = {}
    if plans is not None:
        plans = plans.each(lambda x: x.to(model.device))
    flat = items["flat"].to(model.device)
    nll = model.nll(rolls, None, num_iter_list, known, mar_order, plans=plans, absent=absent, flat=flat)
    if plans is not None:
        planned = model.plan_nll(plans, decided=_first_columns(plans, [w.begin // column for w in batch]))
    costs = ({name: np.array(nats.tolist()) for name, nats in part.items()} for part in (nll.terms, nll.kinds, planned))
    terms, kinds, of_plans = costs
    notes = ((tokens.numpy() >= ONSET) & scored[:, None]).sum((1, 2)).astype(np.float64)
    cells = (scored.sum(1) * tokens.shape[1]).astype(np.float64)
    return Scores(terms, kinds, notes, cells, np.array([w.song for w in batch]), nll.exact, of_plans)


def _first_columns(plans: Plans, counts: Sequence[int]) -> Plans:
    """Plans of which only so many first columns are told."""
    columns = plans.back.shape[1]
    first = torch.arange(columns, device=plans.back.device) < plans.back.new_tensor(counts)[:, None]
    return plans.told(first.repeat_interleave(plans.chords.shape[1] // columns, 1), first, first)
