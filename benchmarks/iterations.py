"""What do more iterations of MAR levels buy, and what do they cost?  One schedule after another.

For each ``--num_iter_list``: the exact negative log-likelihood of real music, how far samples are from real music, and
the seconds that a sample takes.  The default schedule is always among them, and all are set beside it: on the same
crops, under the same random orders, in turns.  Samples are drawn as by ``fractalgen generate``, with a random key.
Validation songs unless told otherwise: what is chosen by these figures must not have seen the test songs.

    python -m benchmarks.iterations --data pop909.safetensors [--num_iter_list 16 --num_iter_list 32 4 2 1 ...]
        [--mar_order random scan] [--only likelihood samples] [--limit N] [--num_samples N] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import measure, natural, parser
from benchmarks.compare_tables import by_name
from benchmarks.timing import Plan, row, take_turns
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.config import GenerateConfig, MarOrder, SamplingConfig
from fractalgen.data.attributes import random_key_labels
from fractalgen.data.corpus import SPLITS, Corpus
from fractalgen.data.crops import ValidCrops, every_other_song
from fractalgen.devices import resolve_device
from fractalgen.errors import UserError
from fractalgen.evaluation.likelihood import check_fits, crop_windows, score
from fractalgen.features.notes import crop_tokens
from fractalgen.features.statistics import (
    STATISTICS,
    Statistics,
    compare,
    mean_distance,
    music_statistics,
)
from fractalgen.model.schedule import Schedule
from fractalgen.rolls import compose_rolls

BATCH = 8  # crops scored, and samples drawn, together
MASKS = 4  # random masks of each crop, averaged for the bound
PARTS = ("likelihood", "samples")
SHOWN = ("scale_consistency", "pitch_class_entropy", "mean_polyphony", "notes_per_bar", "groove_consistency")

Rolls = npt.NDArray[np.uint8]
Figures = dict[str, Any]


def run(args: argparse.Namespace) -> Figures:
    """Measure every schedule, and print a table.

    Raises:
        UserError: settings that cannot work, or a model that has no MAR level or does not fit the corpus.
    """
    if args.num_samples < BATCH or args.num_samples % BATCH:
        raise UserError(f"--num_samples {args.num_samples}: must be a multiple of {BATCH}, so many are drawn together")
    corpus = Corpus.open(args.data)
    model = load_pretrained(args.checkpoint, resolve_device(args.device))
    if model.config.is_autoregressive:
        raise UserError(f"--checkpoint {args.checkpoint}: all its levels are AR, there are no iterations to choose")
    check_fits(corpus, args.data, model)
    known, other = halves(corpus, args, model.config.crop_length)
    todo = schedules(model, args.num_iter_list, args.mar_order)
    rows: dict[str, Figures] = {label(one): {"num_iter_list": one.iterations, "mar_order": one.order} for one in todo}
    if "likelihood" in args.only:
        crops = ValidCrops(corpus, args.split, model.config.crop_length, limit=args.limit)
        for name, figures in likelihoods(model, crops, todo, args.seed).items():
            rows.setdefault(name, {})["likelihood"] = figures
    if "samples" in args.only:
        bar = 4 * corpus.steps_per_quarter
        base = music_statistics(known, bar)
        rows["real songs"] = {"music": apart(base, other, bar)}
        rolls, seconds = drawn(model, todo, args)
        for name in rolls:
            rows[name] |= {"music": apart(base, rolls[name], bar), "seconds": seconds[name]}
    print(f"{model.checkpoint_id}, {corpus.path.stem}, {args.split}; everything beside {label(todo[0])}\n")
    print(by_name({name: cells(figures) for name, figures in rows.items()}))
    return {
        "model": model.checkpoint_id,
        "corpus": corpus.path.stem,
        "threads": torch.get_num_threads(),
        **{name: getattr(args, name) for name in ("split", "limit", "num_samples", "filter_threshold", "seed")},
        "rows": rows,
    }


def schedules(model: FractalGen, lists: Sequence[Sequence[int]] | None, orders: Sequence[MarOrder]) -> list[Schedule]:
    """The default schedule, then those asked for in each order; levels without a number have that of the default.

    ``lists=None``: powers of two for the first level, up to one patch at a time.
    """
    config = model.config
    if lists is None:
        patches = config.pitches // config.patch * config.columns
        lists = [[2**power] for power in range(patches.bit_length())]
    default = config.fit_iterations(SamplingConfig.num_iter_list)

    def complete(given: Sequence[int]) -> tuple[int, ...]:
        return model.iterations((*given, *default[len(given) :]))

    asked = [Schedule(complete(given), order) for order in orders for given in lists]
    return list(dict.fromkeys([Schedule(complete(()), SamplingConfig.mar_order), *asked]))


def label(schedule: Schedule) -> str:
    """A schedule in a table."""
    return f"{' '.join(map(str, schedule.iterations))}, {schedule.order}"


# -------------------------------------------------------------------------------------------------------- likelihood


def likelihoods(model: FractalGen, crops: ValidCrops, todo: Sequence[Schedule], seed: int) -> dict[str, Figures]:
    """Bits per note of the same crops under each schedule, and under no schedule the any-order bound.

    A level's random orders are the same under every schedule that differs in its numbers only.
    """
    windows = crop_windows(crops)
    scored = partial(score, model, crops.corpus, windows, batch_size=BATCH)
    found = {one: scored(num_iter_list=one.iterations, mar_order=one.order, seed=seed) for one in todo}
    first = found[todo[0]]
    result: dict[str, Figures] = {}
    for one, scores in found.items():
        difference = scores.per_note(scores.nats - first.nats)
        result[label(one)] = {**scores.per_note(scores.nats), "difference": difference}
    masks = [scored(seed=seed + number).nats for number in range(MASKS)]
    result["any order, a bound"] = first.per_note(np.mean(masks, axis=0))
    return result


# ----------------------------------------------------------------------------------------------------------- samples


def halves(corpus: Corpus, args: argparse.Namespace, length: int) -> tuple[Rolls, Rolls]:
    """Real rolls (n, 128, T): those of every other song, and as many as there will be samples of the songs between."""
    crops = ValidCrops(corpus, args.split, length)
    second = every_other_song(crops.crops)
    if not second.any():
        raise UserError(f"--split {args.split}: {args.data} has one such song only")
    real, between = crop_tokens(crops), np.flatnonzero(second)
    chosen = np.random.default_rng(args.seed).permutation(between)[: args.num_samples]
    return real[~second], real[np.sort(chosen)]


def drawn(
    model: FractalGen, todo: Sequence[Schedule], args: argparse.Namespace
) -> tuple[dict[str, Rolls], dict[str, dict[int, Figures]]]:
    """Rolls (num_samples, 128, T) of each schedule, and by size of the batch the seconds that a sample took."""
    rolls: dict[str, list[Rolls]] = {label(one): [] for one in todo}

    def draw(one: Schedule, batch: int, number: int) -> None:
        seed = args.seed + number
        settings = SamplingConfig(
            num_iter_list=one.iterations, mar_order=one.order, filter_threshold=args.filter_threshold
        )
        pieces, _ = compose_rolls(
            model,
            batch,
            sampling=settings,
            labels=random_key_labels(model.config.attributes, batch, seed),
            seed=seed,
            batch_size=batch,
        )
        if batch == BATCH:
            rolls[label(one)].append(np.stack([piece.tokens for piece in pieces]))

    plan = Plan(repeats=args.num_samples // BATCH, warm_up=False, device=str(model.device))
    works = {(label(one), batch): partial(draw, one, batch) for one in todo for batch in (1, BATCH)}
    found = take_turns(plan, {f"{name}, batch {batch}": work for (name, batch), work in works.items()})
    times = dict(zip(works, found.values(), strict=True))
    first = label(todo[0])
    seconds: dict[str, dict[int, Figures]] = {name: {} for name in rolls}
    for (name, batch), rounds in times.items():
        title = ("iterations", args.checkpoint, f"{name}, batch {batch}")
        figures = row(title, "s/sample", batch, rounds, (first, times[first, batch]), per=True)
        seconds[name][batch] = dataclasses.asdict(figures)
    return {name: np.concatenate(parts) for name, parts in rolls.items()}, seconds


def apart(base: Statistics, rolls: Rolls, steps_per_bar: int) -> Figures:
    """How far rolls are from the real music behind ``base``: the mean over statistics and each of them.

    The standard error is the jackknife's, over rolls (Efron & Stein, The jackknife estimate of variance, 1981).
    """
    found = compare(base, music_statistics(rolls, steps_per_bar))
    every = range(len(rolls))
    less = [mean_distance(compare(base, music_statistics(np.delete(rolls, i, axis=0), steps_per_bar))) for i in every]
    error = math.sqrt((len(rolls) - 1) * float(np.var(less)))
    return {"distance": mean_distance(found), "stderr": error, "statistics": found}


# ------------------------------------------------------------------------------------------------------- the command


def cells(figures: Figures) -> dict[str, str]:
    """A line of the table for a schedule, by column."""

    def measured(value: float, error: float | None, sign: str = "") -> str:
        return f"{value:{sign}.2f}" if error is None else f"{value:{sign}.2f} ± {error:.2f}"

    line: dict[str, str] = {}
    if found := figures.get("likelihood"):
        line["bits per note"] = measured(found["bits_per_note"], found["stderr"])
        if beside := found.get("difference"):
            line["difference"] = measured(beside["bits_per_note"], beside["stderr"], "+")
    if found := figures.get("music"):
        line["distance"] = measured(found["distance"], found["stderr"])
        for name in SHOWN:
            mean = found["statistics"][name]["sample_mean"]
            line[STATISTICS[name].label] = "" if mean is None else f"{mean:.3g}"
    for batch, times in figures.get("seconds", {}).items():
        line[f"s a sample, batch {batch}"] = f"{times['value']:.2f}"
        line[f"times as fast, batch {batch}"] = f"{times['times_faster']:.2f}"
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.iterations", "what more iterations of MAR levels buy, and what they cost")
    top.add_argument(
        "--checkpoint", default="pop909-mar", help=".ckpt, .safetensors or a shipped name, with MAR levels"
    )
    top.add_argument("--data", required=True, help="packed corpus, or an embedded one by name")
    top.add_argument("--split", default="valid", choices=SPLITS, help="songs")
    schedule = "iterations of the levels, as many as given; may be repeated (powers of two for L0 if absent)"
    top.add_argument("--num_iter_list", type=int, nargs="+", action="append", help=schedule)
    top.add_argument("--mar_order", nargs="+", default=["random"], choices=get_args(MarOrder), help="order of patches")
    top.add_argument("--only", nargs="+", default=PARTS, choices=PARTS, help="what to measure")
    top.add_argument("--limit", type=natural, default=48, help="score so many crops, evenly spread (0: all)")
    top.add_argument("--num_samples", type=int, default=32, help=f"samples of each, a multiple of {BATCH}")
    threshold = GenerateConfig.filter_threshold
    top.add_argument("--filter_threshold", type=float, default=threshold, help="rule out choices less likely than this")
    top.add_argument("--seed", type=natural, default=0, help="seed of orders and samples")
    top.add_argument("--device", default="cpu", help="cpu, cuda, mps or auto")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
