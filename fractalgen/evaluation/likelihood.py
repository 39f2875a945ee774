"""The negative log-likelihood of real music, in several units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import default_collate
from tqdm import tqdm

from fractalgen.config import MarOrder, Precision, SamplingConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import Excerpts, ValidCrops
from fractalgen.devices import autocast
from fractalgen.errors import UserError
from fractalgen.evaluation.statistics import ratio_error
from fractalgen.model.plans import Plans
from fractalgen.music.bars import BarLayout
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


def sliding_windows(
    corpus: Corpus, songs: Sequence[int], length: int, stride: int, patch: int, layouts: Sequence[BarLayout] = ()
) -> list[Window]:
    """Whole songs, each step once: windows that move on by ``stride``, all but its last steps known from before.

    The first window of a song scores all it holds.  Nothing beyond the end of a song is scored.  Windows and the
    steps that they score begin at multiples of ``patch`` from the song's first downbeat, or with bars, where the
    ``layouts`` of the songs are given.
    """
    found = []
    for song, layout in zip(songs, layouts, strict=False):
        done, columns = 0, length // patch
        while done < len(layout):
            target = min(done + (columns if done == 0 else stride // patch), len(layout))
            first = max(0, target - columns)
            found.append(Window(song, int(layout.starts[first]), (done - first) * patch, (target - first) * patch))
            done = target
    for song in songs if not layouts else ():
        first, stop = int(corpus.downbeats(song)[0]), corpus.num_steps(song)
        done = first
        while done < stop:
            target = min(done + (length if done == first else stride), stop)
            span = -(-(target - first) // patch) * patch  # the window ends on a whole patch
            start = first + max(0, span - length)
            found.append(Window(song, start, done - start, target - start))
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

    @property
    def nats(self) -> Floats:
        """NLL of each window."""
        return np.sum(list(self.terms.values()), axis=0)

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
        error = ratio_error(nats / math.log(2), self.notes, self.songs)
        figures = {
            "exact": self.exact,
            "bits_per_note": total / unit,
            "stderr": error,
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
    notes = scores.notes.sum()
    given = float(scores.nats.sum()) / math.log(2) / notes
    parts = {name: float(nats.sum()) / math.log(2) / notes for name, nats in scores.plans.items()}
    both = scores.nats + np.sum(list(scores.plans.values()), axis=0)
    return {
        "bits_per_note": given,
        **parts,
        "with_plan": given + sum(parts.values()),
        "stderr_with_plan": ratio_error(both / math.log(2), scores.notes, scores.songs),
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
    length = config.crop_length
    excerpts = Excerpts(corpus, length, (), patch=config.column, bar_columns=config.bar_columns, plans=given_plan)
    planned: list[dict[str, float]] = []
    step = np.arange(length)
    torch.manual_seed(seed)
    rows: tuple[list[dict[str, float]], ...] = ([], [])
    notes, cells, exact = [], [], True
    context = autocast(precision, model.device)
    with tqdm(total=len(windows), desc="scoring", unit="crop", dynamic_ncols=True, disable=quiet) as bar, context:
        for first in range(0, len(windows), batch_size):
            batch = windows[first : first + batch_size]
            items = default_collate([excerpts(w.song, w.start, alone=w.begin == 0) for w in batch])
            tokens, absent = items["tokens"].numpy(), items.get("absent")
            scored = np.stack([(step >= w.begin) & (step < w.end) for w in batch])
            rolls = items["tokens"].to(model.device)
            known = None if scored.all() else torch.from_numpy(~scored).to(model.device)[:, None].expand_as(rolls)
            if absent is not None:
                scored &= ~absent.numpy()
                absent = absent.to(model.device)
            plans = Plans.of(items)
            if plans is not None:
                plans = plans.each(lambda x: x.to(model.device))
            flat = items["flat"].to(model.device)
            nll = model.nll(rolls, None, num_iter_list, known, mar_order, plans=plans, absent=absent, flat=flat)
            exact = nll.exact
            if plans is not None:
                told = _first_columns(plans, [w.begin // config.column for w in batch])
                costs = {name: values.tolist() for name, values in model.plan_nll(plans, decided=told).items()}
                planned += [{name: values[i] for name, values in costs.items()} for i in range(len(batch))]
            for sums, parts in zip(rows, (nll.terms, nll.kinds), strict=True):
                columns = {name: values.tolist() for name, values in parts.items()}
                sums += [{name: values[i] for name, values in columns.items()} for i in range(len(batch))]
            notes.append(((tokens >= ONSET) & scored[:, None]).sum((1, 2)))
            cells.append(scored.sum(1) * tokens.shape[1])
            bar.update(len(batch))
    return Scores(
        terms=_columns(rows[0]),
        kinds=_columns(rows[1]),
        notes=np.concatenate(notes).astype(np.float64),
        cells=np.concatenate(cells).astype(np.float64),
        songs=np.array([window.song for window in windows]),
        exact=exact,
        plans=_columns(planned),
    )


def _first_columns(plans: Plans, counts: Sequence[int]) -> Plans:
    """Plans of which only so many first columns are told."""
    columns = plans.back.shape[1]
    first = torch.arange(columns, device=plans.back.device) < plans.back.new_tensor(counts)[:, None]
    return plans.told(first.repeat_interleave(plans.chords.shape[1] // columns, 1), first, first)


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Floats]:
    """A table by column; a silent window lacks the terms of levels that were never visited."""
    names = sorted({name for row in rows for name in row})
    return {name: np.array([row.get(name, 0.0) for row in rows]) for name in names}
