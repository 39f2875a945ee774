"""The frame-wise protocol of Coconet (Huang et al. 2017) on chorales, for a model that is MAR down to the cells.

The frames (time steps) of a piece come in random order, and so do the groups of pitches inside a frame.  Of each group
the model says how probable the truth is, given the true frames before it and, inside the frame, its own most likely
picks for the groups before it.  The probability of a frame is averaged over several orderings; the score is the mean
negative logarithm over frames, in nats.  In some of the orderings the neighbours of a frame are known, so this is far
below the mean over single orderings, which is told, too: but for the picks, that is the likelihood of whole pieces.

Coconet's groups are its four voices of one pitch each.  Here they are the first level's patches: 16 neighbouring
pitches, of which a set sounds, since a piano roll does not name voices, and two voices on one pitch are one.  The
probability of a group is a product over its parts from the lowest pitch up, each given those below it: the first level
says whether the group sounds, the second the same of each of its rows, and so on down to the cells.

    python -m benchmarks.framewise --checkpoint MODEL.ckpt --data jsb-16th.safetensors [--songs N] [--json FILE]

Silence, which is known, fills pieces that are shorter than the excerpts of the training.  Many pieces are computed
together (`--rows`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from benchmarks import measure, natural, parser
from benchmarks.frame_groups import group_log_probabilities, inputs, parts, put
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.config import Precision
from fractalgen.data.corpus import SPLITS, Corpus
from fractalgen.data.crops import evenly
from fractalgen.devices import autocast, choose_precision
from fractalgen.errors import UserError
from fractalgen.evaluation.likelihood import check_fits
from fractalgen.features.statistics import ratio_error
from fractalgen.model.grid import Grid, numbers, surround
from fractalgen.model.level import FractalLevel
from fractalgen.model.losses import wide
from fractalgen.model.mar import MaskedAutoregressive
from fractalgen.model.plans import Plans
from fractalgen.model.regions import Regions
from fractalgen.model.transformer import Transformer, attend, evaluate, narrow


class Ordering(NamedTuple):
    """One random order of the frames of a roll and, for each frame in that order, one of the groups (their places)."""

    frames: Int[Tensor, " f"]
    groups: Int[Tensor, "f g"]


class Reading:
    """What the first level's generator reads of each child, worked out anew where a cell near it has changed."""

    def __init__(self, level: FractalLevel, grid: Grid) -> None:
        self.level, self.grid = level, grid
        self.canvas: Tensor | None = None
        self.found: Tensor | None = None

    def __call__(self, regions: Regions, undecided: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """See :func:`.inputs`; of the regions before, those at the end may be missing."""
        changed, before = torch.ones_like(undecided), None
        if self.canvas is not None and self.found is not None:
            changed = touched(self.level, self.grid, regions.canvas != self.canvas[: len(undecided)])
            before = self.found[: len(undecided)]
        self.canvas = regions.canvas.clone()
        self.found = inputs(self.level, regions, self.grid, undecided, changed, before)
        return self.found


def draw(frames: int, groups: int, count: int) -> list[Ordering]:
    """Random orderings of a roll, from torch's global state."""
    order = [torch.randperm(frames) for _ in range(count)]
    ranks = torch.stack([torch.stack([torch.randperm(groups) for _ in range(count)]) for _ in range(frames)], 1)
    return [Ordering(*one) for one in zip(order, ranks.argsort(2), strict=True)]


def output_at(transformer: Transformer, x: Float[Tensor, "b n d"], place: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """The output of a bidirectional transformer at one place of each sequence; its last block visits nothing else."""

    def everywhere(qkv: Tensor, heads: int) -> Tensor:
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return attend(q, k, v, causal=False).transpose(1, 2).flatten(2)

    x = narrow(x)
    *blocks, last = (block.weights() for block in transformer.blocks)
    for block in blocks:
        x = evaluate(x, block, everywhere)
    width = x.shape[-1]
    memory = F.linear(F.layer_norm(x, (width,), *last.norm1), last.qkv[width:])

    def here(qkv: Tensor, heads: int) -> Tensor:
        q = qkv[..., :width].unflatten(-1, (heads, -1)).transpose(1, 2)
        k, v = memory.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return attend(q, k, v, causal=False).transpose(1, 2).flatten(2)

    found: Tensor = transformer.norm(evaluate(x[torch.arange(len(x)), place][:, None], last, here))
    return found[:, 0]


def touched(level: FractalLevel, grid: Grid, changed: Bool[Tensor, "b ch cw"]) -> Bool[Tensor, "b n"]:
    """The children in whose context a cell of the canvas ``changed``."""
    margin, context, size = level.margin, level.context, (level.patch, level.steps)
    top, left = margin.pitch - context.pitch, margin.past - context.past
    near = changed[:, top : changed.shape[1] - top, left : changed.shape[2] - margin.future + context.future]
    window = (size[0] + 2 * context.pitch, size[1] + context.past + context.future)
    found = F.max_pool2d(near[:, None].float(), window, stride=size)[:, 0] > 0
    return (found.transpose(1, 2) if grid.order == "column_major" else found).flatten(1)


def hidden_cells(
    lengths: Int[Tensor, " r"], groups: Int[Tensor, " g"], shape: tuple[int, ...], patch: int
) -> Bool[Tensor, "r p t"]:
    """The cells that are not known at first, of rolls of a shape: those of the groups in the frames that there are."""
    open_rows = torch.zeros(shape[1] // patch, dtype=torch.bool, device=groups.device)
    open_rows[groups] = True
    frames = torch.arange(shape[2], device=groups.device) < lengths[:, None, None]
    return frames & open_rows.repeat_interleave(patch)[:, None]


@torch.inference_mode()
def frame_log_probabilities(
    model: FractalGen,
    rolls: Int[Tensor, "r p t"],
    orderings: Sequence[Ordering],
    groups: Sequence[int],
    bar: tqdm | None = None,
) -> list[Float[Tensor, " f"]]:
    """Log-probability of each frame of some rolls, each under an ordering of its own.

    ``groups`` are the first level's rows in which anything may sound.  All other rows are known, and so are the frames
    beyond those that an ordering names.
    """
    config, device, level = model.config, model.device, model.root
    patch, column, margin, count = config.patch, config.column, level.margin, len(rolls)
    by_length = sorted(range(count), key=lambda row: -len(orderings[row].frames))
    lengths = torch.tensor([len(orderings[row].frames) for row in by_length])
    tokens = rolls[by_length].to(device, torch.int8)  # the largest code is 67
    sorted_orderings = [orderings[row] for row in by_length]
    frames = pad_sequence([one.frames for one in sorted_orderings]).to(device)  # (f, r)
    places = pad_sequence([one.groups for one in sorted_orderings]).to(device)  # (f, r, g)
    rows = torch.tensor(groups, device=device)
    hidden = hidden_cells(lengths.to(device), rows, rolls.shape, patch)
    given = tokens.masked_fill(hidden, -1)
    canvas = surround(tokens.masked_fill(hidden, config.vocabulary), margin, config.vocabulary + 1)
    free = (
        None if model.planner is None else Plans.free(count, rolls.shape[2] // column, config.pitches, column, device)
    )
    cond = model.condition(None, count, free)
    result = torch.zeros(count, frames.shape[0], device=device, dtype=cond.vector.dtype)
    grid, kept = level.grid(canvas), {}  # type: ignore[var-annotated]
    assert isinstance(level.generator, MaskedAutoregressive)
    base = level.base(cond, grid, kept)
    reading = Reading(level, grid)
    for number in range(frames.shape[0]):
        active = int((lengths > number).sum())
        now, every = frames[number, :active], torch.arange(active, device=device)
        canvas, given, tokens = canvas[:active], given[:active], tokens[:active]
        cond = cond.each(lambda c, active=active: c[:active])  # type: ignore[misc]
        truth = tokens[every, :, now].long()
        regions = Regions(canvas, given)
        for turn in range(len(groups)):
            row = rows[places[number, :active, turn]]
            undecided, filled, _ = level.tasks(regions, grid)
            child = numbers(grid, device)[row, now // column]
            z = output_at(level.generator.transformer, reading(regions, undecided) + base[:active], child)
            cells = row[:, None] * patch + torch.arange(patch, device=device)
            mine = truth.gather(1, cells)
            gate = wide(level.gate(z)[:, 0]).masked_fill(filled[every, child], float("inf"))
            below = parts(level, regions, cond, grid, z, every, child)
            last = turn + 1 == len(groups)
            logs, picks = group_log_probabilities(level.child, *below, gate, now % column, mine, kept, pick=not last)
            result[:active, number] += logs
            put(regions, margin, every, cells, now, picks)
        put(regions, margin, every, torch.arange(config.pitches, device=device).expand_as(truth), now, truth)
        if bar is not None:
            bar.update(active)
    found: list[Tensor] = [result.new_empty(0)] * count
    for logs, number in zip(result, by_length, strict=True):
        order = orderings[number].frames.to(device)
        found[number] = logs.new_empty(len(order)).index_put((order,), logs[: len(order)])
    return found


class Piece(NamedTuple):
    """A song, or a part of one that is as long as the model's excerpts."""

    song: int
    roll: Int[Tensor, "p t"]
    orderings: list[Ordering]


def score(
    model: FractalGen, corpus: Corpus, songs: Sequence[int], groups: Sequence[int], orders: int, rows: int
) -> tuple[list[float], list[float]]:
    """Nats of each song: the probabilities of its frames averaged over ``orders`` random orderings, and the mean nats.

    ``rows``: how many rolls are computed together.  The orderings come from torch's global state.
    """
    length, pieces = model.config.crop_length, []
    for song in songs:
        for start in range(0, corpus.num_steps(song), length):
            frames = min(length, corpus.num_steps(song) - start)
            roll = torch.from_numpy(corpus.tokens(song, start, start + length).astype(np.int64))
            pieces.append(Piece(song, roll, draw(frames, len(groups), orders)))
    pieces.sort(key=lambda piece: len(piece.orderings[0].frames))
    averaged, mean = dict.fromkeys(songs, 0.0), dict.fromkeys(songs, 0.0)
    many = max(1, rows // orders)
    total = orders * sum(corpus.num_steps(song) for song in songs)
    with tqdm(total=total, desc="scoring", unit="frame") as bar:
        for batch in (pieces[first : first + many] for first in range(0, len(pieces), many)):
            rolls = torch.stack([piece.roll for piece in batch]).repeat_interleave(orders, 0)
            orderings = [ordering for piece in batch for ordering in piece.orderings]
            logs = frame_log_probabilities(model, rolls, orderings, groups, bar)
            for number, piece in enumerate(batch):
                mine = torch.stack(logs[number * orders : (number + 1) * orders])
                averaged[piece.song] -= float((mine.logsumexp(0) - math.log(orders)).sum())
                mean[piece.song] -= float(mine.mean(0).sum())
    return [averaged[song] for song in songs], [mean[song] for song in songs]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score the songs of a split, and print the figures."""
    model, corpus = load_pretrained(args.checkpoint), Corpus.open(args.data)
    config = model.config
    if any(level.generator != "mar" for level in config.levels):
        kinds = " ".join(level.generator for level in config.levels)
        raise UserError(
            f"--checkpoint {args.checkpoint}: its levels are {kinds}; the protocol needs mar at every level"
        )
    check_fits(corpus, args.data, model)
    pitches = np.concatenate([corpus.notes(song)["pitch"] for song in corpus.indices("train") or range(len(corpus))])
    groups = sorted(set((pitches // config.patch).tolist()))
    songs = evenly(corpus.indices(args.split), args.songs)
    torch.manual_seed(args.seed)
    with autocast(args.precision, model.device):
        nats, of_one = score(model, corpus, songs, groups, args.orders, args.rows)
    counts = [corpus.num_steps(song) for song in songs]
    result = {
        "model": model.checkpoint_id,
        "corpus": corpus.path.stem,
        "split": args.split,
        "protocol": "frame-wise",
        "orders": args.orders,
        "precision": choose_precision(args.precision, model.device),
        "nats_per_frame": sum(nats) / sum(counts),
        "stderr": ratio_error(nats, counts, songs),
        "nats_per_frame_of_one_ordering": sum(of_one) / sum(counts),
        "frames": sum(counts),
        "songs": len(songs),
        "pitches": [groups[0] * config.patch, (groups[-1] + 1) * config.patch - 1],
    }
    print(json.dumps(result, indent=2))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.framewise", "the frame-wise protocol on chorales")
    top.add_argument("--checkpoint", required=True, help="a model that is mar at every level")
    top.add_argument("--data", required=True, help="packed corpus")
    top.add_argument("--split", default="test", choices=SPLITS, help="songs to score")
    top.add_argument("--orders", type=int, default=5, help="random orderings averaged")
    top.add_argument("--songs", type=natural, default=0, help="score at most so many songs, evenly spread (0: all)")
    top.add_argument("--rows", type=int, default=80, help="pieces times orderings that are computed together")
    top.add_argument("--seed", type=int, default=0, help="seed of the orderings")
    top.add_argument("--precision", default="auto", choices=get_args(Precision), help="arithmetic (auto: the faster)")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
