"""How well gaps are filled: bars 5 to 8 of 16 are composed anew, given the bars around them.

On excerpts of 16 bars of test songs, beside two that need no future context: bars 5 to 8 of a piece composed from
nothing, and bars 1 to 4 copied.  Also measured is what both sides are worth: the bits per note of the true bars, given
both sides and given the left side alone.

    python -m benchmarks.infilling --data pop909.safetensors [--models pop909-mar pop909-ar] [--songs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks import measure, natural, parser
from benchmarks.compare_tables import by_name
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.config import SamplingConfig
from fractalgen.data.corpus import SPLITS, Corpus
from fractalgen.data.crops import ValidCrops, evenly
from fractalgen.errors import UserError
from fractalgen.evaluation.likelihood import check_fits
from fractalgen.features.notes import crop_tokens
from fractalgen.features.statistics import compare, mean_distance, music_statistics
from fractalgen.model.plans import Plans
from fractalgen.music.planning import piece_plan
from fractalgen.music.tokens import DEFAULT_METER, HOLD, ONSET
from fractalgen.progress import composing_bar
from fractalgen.rolls import layout_of, plans_of
from fractalgen.sampling import sample_rolls

Rolls = npt.NDArray[np.uint8]
BARS = 16
GAP = slice(4, 8)
BATCH = 8
MASKS = 8  # random masks averaged for a bound


def agreement(truth: Rolls, filled: Rolls, steps_per_bar: int) -> dict[str, float]:
    """How near fillings (n, 128, T) are to the truth, from 0 to 1, means over rolls.

    - ``pitch classes``: overlap of the two distributions of pitch classes over sounding cells of a bar
    - ``onsets``: F1 of the steps at which something is struck; ``notes``: F1 of struck cells, pitch and step
    """

    def classes(rolls: Rolls) -> npt.NDArray[np.float64]:
        padded = np.pad(rolls > 0, ((0, 0), (0, -rolls.shape[1] % 12), (0, 0)))
        cells = padded.reshape(len(rolls), -1, 12, rolls.shape[2] // steps_per_bar, steps_per_bar).sum((1, 4))
        return np.asarray(cells / np.maximum(cells.sum(1, keepdims=True), 1))

    def f1(one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]) -> float:
        both, either = (one & two).sum((1, 2)), one.sum((1, 2)) + two.sum((1, 2))
        return float(np.mean(2 * both / np.maximum(either, 1)))

    struck = [rolls >= ONSET for rolls in (truth, filled)]
    return {
        "pitch classes": float(np.minimum(classes(truth), classes(filled)).sum(1).mean()),
        "onsets": f1(*[np.any(rolls, axis=1, keepdims=True) for rolls in struck]),
        "notes": f1(*struck),
    }


def held(before: Rolls, filled: Rolls) -> float:
    """Share of the notes sounding at the last step of ``before`` that are held into the first step of ``filled``."""
    sounding = before[..., -1] > 0
    return float((sounding & (filled[..., 0] == HOLD)).sum() / max(1, sounding.sum()))


def distance(truth: Rolls, filled: Rolls, steps_per_bar: int) -> float:
    """Mean over the music statistics of the Wasserstein distance in standard deviations of the true bars."""
    return mean_distance(compare(*(music_statistics(rolls, steps_per_bar) for rolls in (truth, filled))))


@torch.no_grad()
def bits_per_note(model: FractalGen, rolls: Tensor, known: Tensor) -> float:
    """NLL of the cells that are not known in bits per note; for MAR levels a bound, averaged over masks."""
    torch.manual_seed(0)
    repeats = 1 if model.config.is_autoregressive else MASKS
    nats = 0.0
    for _ in range(repeats):
        for part in rolls.split(BATCH):
            nats += float(model.nll(part, known=known.expand_as(part)).total.sum()) / repeats
    notes = int(((rolls >= ONSET) & ~known).sum())
    return nats / math.log(2) / notes


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Fill the gaps with every model, and print a table."""
    corpus = Corpus.open(args.data)
    bar = 4 * corpus.steps_per_quarter
    width, gap = BARS * bar, slice(GAP.start * bar, GAP.stop * bar)
    crops = ValidCrops(corpus, args.split, width)
    first = {song: index for index, (song, _) in reversed(list(enumerate(crops.crops)))}
    chosen = evenly(sorted(first.values()), args.songs)  # the beginning of every song
    real = crop_tokens([crops[index] for index in chosen])
    real = real[(real[..., gap] > 0).any((1, 2))]
    truth = real[..., gap]
    rows: dict[str, dict[str, Any]] = {}

    def add_row(name: str, filled: Rolls) -> None:
        figures = {"distance": distance(truth, filled, bar), "held over the seam": held(real[..., : gap.start], filled)}
        rows[name] = {**agreement(truth, filled, bar), **figures}

    add_row("the truth", truth)
    add_row("another song", np.roll(truth, 1, axis=0))
    add_row("bars 1 to 4 again", real[..., gap.start - (gap.stop - gap.start) : gap.start])
    for name in args.models:
        model = load_pretrained(name)
        check_fits(corpus, args.data, model)
        if model.config.crop_length < width:
            raise UserError(f"--models {name}: crops of {model.config.crop_length} steps, {width} are needed")
        tokens = torch.from_numpy(real.astype(np.int64))
        known = torch.ones(tokens.shape[1:], dtype=torch.bool)
        known[:, gap] = False
        around = torch.where(known, tokens, -1)
        if not model.config.sees_future:
            add_row(f"{name}, given the left side", sample(model, len(real), width, around, args, 1)[..., gap])
        add_row(f"{name}, given both sides", sample(model, len(real), width, around, args)[..., gap])
        add_row(f"{name}, from nothing", sample(model, len(real), width, None, args, 1)[..., gap])
        left = tokens[..., : gap.stop]
        rows[f"{name}, given both sides"] |= {
            "bits per note of the truth": bits_per_note(model, tokens, known),
            "given the left side alone": bits_per_note(model, left, known[:, : gap.stop]),
        }
    print(f"{corpus.path.stem}, {args.split}: {len(real)} excerpts of {BARS} bars, bars 5 to 8 composed anew\n")
    print(by_name({name: {key: f"{value:.3f}" for key, value in row.items()} for name, row in rows.items()}))
    return {"corpus": corpus.path.stem, "split": args.split, "excerpts": len(real), "rows": rows}


def sample(
    model: FractalGen,
    count: int,
    width: int,
    given: Tensor | None,
    args: argparse.Namespace,
    candidates: int = SamplingConfig.candidates,
) -> Rolls:
    """Rolls (count, 128, width) around the given cells."""
    generator = torch.Generator().manual_seed(args.seed)
    settings = SamplingConfig(filter_threshold=args.filter_threshold, candidates=candidates)
    parts = []
    with composing_bar() as progress:
        for start in range(0, count, BATCH):
            here = min(BATCH, count - start)
            around = None if given is None else given[start : start + here]
            tokens, _ = sample_rolls(
                model,
                replace(settings, num_iter_list=model.iterations(SamplingConfig.num_iter_list)),
                here,
                width=width,
                known=around,
                plans=None if around is None else heard_plans(model, around, generator),
                generator=generator,
                progress=lambda done, total, s=start, n=here: progress(s * total // n + done, count * total // n),  # type: ignore[misc]
            )
            parts.append(tokens.numpy().astype(np.uint8))
    return np.concatenate(parts)


def heard_plans(model: FractalGen, around: Tensor, generator: torch.Generator) -> Plans | None:
    """The plans that given cells sound like, as :mod:`fractalgen.compose` tells them; None for models without plans."""
    if model.planner is None:
        return None
    layout = layout_of(model.config, around.shape[-1])
    told = [
        piece_plan(layout, model.config.steps_per_quarter, known=cells, meters=(DEFAULT_METER,))
        for cells in around.numpy()
    ]
    return plans_of(model, SamplingConfig(), layout, told, False, None, generator)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.infilling", "how well gaps are filled")
    top.add_argument("--data", required=True, help="packed corpus")
    top.add_argument("--models", nargs="+", default=["pop909-mar", "pop909-ar"], help="shipped models or checkpoints")
    top.add_argument("--split", default="test", choices=SPLITS, help="songs")
    top.add_argument("--songs", type=natural, default=0, help="at most so many songs, evenly spread (0: all)")
    top.add_argument("--filter_threshold", type=float, default=0.01, help="rule out choices less likely than this")
    top.add_argument("--seed", type=int, default=0, help="seed of the samples")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
