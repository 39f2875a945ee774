"""FractalGen under the event space of a published likelihood on POP909, and both figures side by side.

Published: Nested Music Transformer (Ryu et al., ISMIR 2024, arXiv 2408.01180; its code: github.com/JudeJiwoo/nmt), in
nats a token.  Whole songs are scored by windows that move on, each given its past.  The model's probabilities of
velocity bins are summed into the five velocities of the publication.  Everything else stays as it is: 128 pitches by
sixteenths, each cell silent, struck or held.

    python -m benchmarks.event_space --data pop909.safetensors [--model pop909-ar] [--limit SONGS] [--json FILE]
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks import measure, natural, parser
from benchmarks.compare_tables import markdown
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.config import DEFAULT_MODEL, Precision
from fractalgen.data.corpus import SPLITS, Corpus
from fractalgen.data.crops import Excerpts, evenly
from fractalgen.devices import resolve_device
from fractalgen.errors import UserError
from fractalgen.evaluation.likelihood import Scores, Window, check_fits, plan_summary, score, sliding_windows
from fractalgen.model.losses import LossTerms, wide
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.schedule import Schedule
from fractalgen.model.velocity_head import VelocityHead
from fractalgen.music.tokens import ONSET, midi_velocity

Ints = npt.NDArray[np.int64]

PUBLISHED = {"REMI": 0.716, "CP, nested decoder": 0.724, "CP": 0.911}
"""Nats a token on test songs of POP909."""
ALL_TOKENS, COUNTED_TOKENS = 3.73, 3.55
"""REMI tokens a note: all; and without those of bars, meters and the end, which the published average leaves out.

The published preprocessing, repeated on the first version of 818 songs, gives 3.77 and 3.59.
"""
VELOCITIES = (40, 60, 80, 100, 120)
DURATIONS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32)
"""The published classes: a velocity, and a duration in sixteenths, belong to the nearest one, the lower one of two."""
TERM = "coarse"


def nearest(classes: Sequence[int], values: npt.NDArray[np.int64]) -> Ints:
    """The number of the class that is nearest to each value; the lower one of two."""
    return np.abs(values[:, None] - np.array(classes)).argmin(1)


def velocity_classes(bins: int) -> Ints:
    """The published velocity class of each of so many bins, by the velocity in the bin's middle.

    Of 32 bins, the last of each class ends at 51, 71, 91 and 111; the published classes end at 50, 70, 90 and 110.
    """
    return nearest(VELOCITIES, midi_velocity(np.arange(bins), bins))


@contextmanager
def scored_in_classes(model: FractalGen, classes: Ints) -> Iterator[None]:
    """Meanwhile the model's likelihood has one more term: that of the velocities, known by their class only.

    The probability of a class is the sum of those of its bins.  ``classes``: the class of each bin.

    Raises:
        UserError: velocities are no decisions of their own: the last level is MAR.
    """
    head = model.levels[-1]
    assert isinstance(head, VelocityHead)
    if head.joint:
        raise UserError(f"{model.checkpoint_id}: a MAR last level decides hold and velocity together, AR is needed")
    logits: deque[Tensor] = deque(maxlen=1)
    hook = head.velocity.register_forward_hook(lambda module, given, output: logits.append(output))
    in_bins = head.nll

    def nll(
        regions: Regions,
        cond: Condition,
        crop: Tensor,
        weight: Tensor,
        losses: LossTerms,
        schedule: Schedule | None = None,
    ) -> None:
        in_bins(regions, cond, crop, weight, losses, schedule)
        token = head.cell(regions.canvas).long()
        onset = (token >= ONSET) & ~losses.flat[crop]
        of_bin = torch.from_numpy(classes).to(token.device)
        alike = of_bin == of_bin[token[onset] - ONSET, None]
        inside = wide(logits.pop()).log_softmax(-1).masked_fill(~alike, float("-inf"))
        losses.add(TERM, -inside.logsumexp(-1), crop[onset], weight[onset], TERM)

    head.nll = nll  # type: ignore[method-assign]
    try:
        yield
    finally:
        del head.nll
        hook.remove()


def score_both(
    model: FractalGen, corpus: Corpus, windows: Sequence[Window], classes: Ints, **settings: Any
) -> tuple[Scores, Scores]:
    """Scores (see :func:`fractalgen.evaluation.likelihood.score`) with velocities by bin, and by class."""
    with scored_in_classes(model, classes):
        found = score(model, corpus, windows, **settings)
    coarse = found.terms.get(TERM, np.zeros(len(windows)))
    terms = {name: values for name, values in found.terms.items() if name != TERM}
    kinds = {name: values for name, values in found.kinds.items() if name != TERM}
    name = f"{model.levels[-1].name}/velocity"
    fine = replace(found, terms=terms, kinds=kinds)
    return fine, replace(fine, terms={**terms, name: coarse}, kinds={**kinds, "velocity": coarse})


def durations_inside_classes(corpus: Corpus, songs: Sequence[int], known: Sequence[int]) -> float:
    """Bits a note that say which duration of its published class a note has, at the frequencies of ``known`` songs."""
    here, there = (np.concatenate([corpus.notes(song)["duration"] for song in which]) for which in (songs, known))
    longest = int(max(here.max(), there.max()))
    classes = nearest(DURATIONS, np.arange(1 + longest))
    counts = 1.0 + np.bincount(there, minlength=1 + longest)
    return float(-np.log2(counts / np.bincount(classes, counts)[classes])[here].mean())


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score the songs, and print both sides and what differs."""
    corpus = Corpus.open(args.data)
    model = load_pretrained(args.model, resolve_device(args.device))
    config = model.config
    check_fits(corpus, args.data, model)
    stride = args.stride or config.crop_length // 2
    if stride < 0 or stride % config.column or stride > config.crop_length:
        raise UserError(f"--stride {args.stride}: a multiple of {config.column}, {config.crop_length} at most")
    songs = evenly(corpus.indices(args.split), args.limit)
    if not songs:
        raise UserError(f"--split {args.split}: {args.data} has no such songs")
    excerpts = Excerpts(corpus, config.crop_length, patch=config.column, bar_columns=config.bar_columns)
    windows = sliding_windows(excerpts, songs, stride)
    classes = velocity_classes(config.velocity_bins)
    settings = {"batch_size": args.batch_size, "precision": args.precision}
    rows: dict[str, dict[str, float]] = {}
    result = {
        "model": model.checkpoint_id,
        "corpus": corpus.path.stem,
        "split": args.split,
        "stride": stride,
        "bars": config.columns,
        "songs": len(songs),
        "notes": 0,
        "exact": True,
        "rows": rows,
    }
    for planned in (False, True) if config.plan_width else (False,):
        both = score_both(model, corpus, windows, classes, given_plan=planned, **settings)
        result |= {"notes": int(both[0].notes.sum()), "exact": both[0].exact}
        for bins, scores in zip((config.velocity_bins, len(VELOCITIES)), both, strict=True):
            rows[f"{bins} velocities{', with its plan' * planned}"] = parts(scores)
    result["durations"] = durations_inside_classes(corpus, songs, corpus.indices("train") or songs)
    print(text_of(result))
    return result


def parts(scores: Scores) -> dict[str, float]:
    """Bits a note by what is decided, the sum, and its standard error over songs."""
    summary = scores.summary()
    if summary["bits_per_note"] is None:
        raise UserError("no note begins in these songs")
    kinds = summary["kinds"]
    found = {
        "cells": kinds["silence"] + kinds["sound"],
        "articulation": kinds["hold"] + kinds["onset"],
        "velocity": kinds["velocity"],
        "plan": 0.0,
        "total": summary["bits_per_note"],
        "stderr": summary["stderr"],
    }
    if scores.plans:
        plan = plan_summary(scores)
        found |= {"plan": plan["plan/returns"] + plan["plan/chords"], "total": plan["with_plan"]}
        found["stderr"] = plan["stderr_with_plan"]
    return found


def text_of(result: dict[str, Any]) -> str:
    """Both sides as a table, and what differs."""
    columns = ("cells", "articulation", "velocity", "plan")
    table = [["bits a note", *columns, "total", "nats a token"]]
    sign = "" if result["exact"] else "at most "
    for name, row in result["rows"].items():
        error = "" if math.isnan(row["stderr"] or math.nan) else f" ± {row['stderr']:.3f}"
        cells = [f"{row[column]:.3f}" if row[column] else "" for column in columns]
        nats = row["total"] * math.log(2) / COUNTED_TOKENS
        table.append([name, *cells, f"{sign}{row['total']:.3f}{error}", f"{nats:.3f}"])
    for name, nats in PUBLISHED.items():
        low, high = (nats / math.log(2) * tokens for tokens in (COUNTED_TOKENS, ALL_TOKENS))
        table.append([f"published: {name}", *[""] * len(columns), f"{low:.2f} to {high:.2f}", f"{nats:.3f}"])
    head = (
        f"{result['model']} on {result['corpus']}, {result['split']}: {result['songs']} whole songs,"
        f" {result['notes']} notes, windows of {result['bars']} bars that move on by {result['stride']} steps"
    )
    what = [textwrap.fill(line.format(**result), 110, subsequent_indent="  ") for line in DIFFERENCES]
    return "\n\n".join([head, markdown(table), "\n".join(what)])


DIFFERENCES = (
    f"The same on both sides: sixteenths, pitches, the velocities {', '.join(map(str, VELOCITIES))}, whole songs, a"
    " split by song.  What differs, and which figure it changes:",
    f"- Tokens.  A published figure is a mean over {COUNTED_TOKENS} tokens a note.  Bars, meters and the end"
    f" ({ALL_TOKENS - COUNTED_TOKENS:.2f} tokens a note) are predicted, but not counted.  The lower total leaves them"
    " out and is too low by what they cost.  In the higher one, each of them costs as much as another token.",
    "- Chords (0.09 tokens a note) and tempi (0.002) are counted there.  The published figure is higher by what they"
    " cost, less what chords tell of the notes.",
    "- Plan.  A plan and the music are scored together, which is more than the music alone.  Ours with its plan is"
    " higher.",
    f"- Durations are exact here; there they are {len(DURATIONS)} classes up to {DURATIONS[-1]} sixteenths.  Which"
    " duration of its class a note has takes {durations:.3f} bits a note at the frequencies of training songs.  Ours is"
    " higher by about so much at most.",
    "- Notes.  There, those below half a sixteenth are left out, and many of those that are a semitone apart or begin"
    " together by rounding alone: 7 % of the notes.  Ours is probably higher.",
    "- Metre.  Here, bar lines and the number of bars are given.  There, the ticks of the files are the grid; in most"
    " files their bars are a quarter long, and notes are off their beats.  Ours is lower.",
    "- Context.  There, nearly the whole song.  Here, a window of {bars} bars; with the plan also the bar that comes"
    " back, from up to 64 bars before.  Ours is higher.",
    "- Songs.  There, 2,583 files, among them several versions of a song, most of them to train on.  Here, one version"
    " of each song.  Ours is probably higher.  The test songs are not the same.",
    f"- The velocities {', '.join(str(v + 11) for v in VELOCITIES[:-1])} (4 % of the notes) belong to the class below"
    " here and to the one above there, because bins of four are summed.  No direction.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.event_space", "whole songs under the event space of a published likelihood")
    top.add_argument("--data", required=True, help="packed corpus (POP909, as the published figures)")
    top.add_argument("--model", default=DEFAULT_MODEL, help="shipped model or checkpoint, its last level AR")
    top.add_argument("--split", default="test", choices=SPLITS, help="songs")
    top.add_argument("--limit", type=natural, default=0, help="at most so many songs, evenly spread (0: all)")
    top.add_argument("--stride", type=int, default=0, help="steps by which windows move on (0: half a window)")
    top.add_argument("--batch_size", type=int, default=8, help="windows computed together")
    top.add_argument("--precision", default="auto", choices=get_args(Precision), help="arithmetic (auto: the faster)")
    top.add_argument("--device", default="cpu", help="cpu, cuda, mps or auto")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
