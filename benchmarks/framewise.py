"""The frame-wise protocol of Coconet (Huang et al. 2017) on chorales, for a model that is MAR down to the cells.

The frames (time steps) of a piece come in random order, and so do the groups of pitches inside a frame.  Of each group
the model says how probable the truth is, given the true frames before it and, inside the frame, its own most likely
picks for the groups before it.  The probability of a frame is averaged over several orderings; the score is the mean
negative logarithm over frames, in nats.

Coconet's groups are its four voices of one pitch each.  Here they are the first level's patches: 16 neighbouring
pitches, of which a set sounds, since a piano roll does not name voices, and two voices on one pitch are one.  The cells
of a group are drawn together, independent of each other given the gates above them.

    python -m benchmarks.framewise --checkpoint MODEL.ckpt --data jsb-16th.safetensors [--songs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from benchmarks import exit_status
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.cli import Parser
from fractalgen.config import Precision
from fractalgen.data.corpus import SPLITS, Corpus
from fractalgen.data.crops import evenly
from fractalgen.devices import autocast, choose_precision
from fractalgen.errors import UserError
from fractalgen.evaluation.likelihood import ratio_error
from fractalgen.files import write_json
from fractalgen.model.grid import interior, surround, windows
from fractalgen.model.level import FractalLevel
from fractalgen.model.losses import wide
from fractalgen.model.mar import MaskedAutoregressive
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.velocity_head import VelocityHead
from fractalgen.music.tokens import HOLD, SILENCE


def column(
    level: FractalLevel | VelocityHead,
    regions: Regions,
    cond: Condition,
    step: Int[Tensor, " b"],
    truth: Int[Tensor, "b h"],
    rows: Sequence[int] | None = None,
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b h v"]]:
    """One time step of regions that are not silent as a whole, of which only what is ``given`` is known.

    Returns the log-probability of ``truth`` in that step (of the rows of patches in ``rows``), and the marginal
    probability of every token in every cell.
    """
    if isinstance(level, VelocityHead):  # a cell that is known to sound
        logits, _ = level.first(regions, cond)
        logs = F.pad(wide(logits).log_softmax(-1), (HOLD, 0), value=float("-inf"))
        return logs.gather(1, truth)[:, 0], logs.exp()[:, None]
    assert regions.given is not None
    assert isinstance(level.generator, MaskedAutoregressive)
    grid = level.grid(regions.canvas)
    undecided, filled, _ = level.tasks(regions, grid)
    content = level.embed(level.features(grid.split(interior(regions.canvas, level.margin))))
    sees = ~undecided[:, None]
    z = level.generator(content, level.base(cond, grid), level.look(regions, sees), sees)
    odds = wide(level.gate(z)[..., 0]).masked_fill(filled, float("inf"))

    chosen = list(range(grid.rows)) if rows is None else list(rows)
    numbers = torch.empty(len(grid), dtype=torch.long)
    numbers[grid.number(torch.arange(len(grid)).view(grid.rows, grid.cols))] = torch.arange(len(grid))
    child = numbers.view(grid.rows, grid.cols).to(step.device)[chosen][:, step // grid.patch].T.flatten()
    region = torch.arange(len(step), device=step.device).repeat_interleave(len(chosen))
    around, _ = windows(grid, level.margin, level.child.margin, step.device)
    parts = Regions(
        regions.canvas.flatten(1)[region[:, None, None], around[child]],
        grid.split(regions.given)[region, child],
        level.long_context(regions, region, child),
    )
    below = truth.unflatten(1, (len(chosen), grid.patch)).flatten(0, 1)
    logs, tokens = column(
        level.child,
        parts,
        level.inside(cond, grid, z).each(lambda x: x[region, child]),
        (step % grid.patch)[region],
        below,
    )

    odds = odds[region, child]
    closed = torch.where((below == SILENCE).all(1), F.logsigmoid(-odds), float("-inf"))
    logs = torch.logaddexp(F.logsigmoid(odds) + logs, closed)
    tokens = tokens * odds.sigmoid()[:, None, None]
    tokens = torch.cat([1 - tokens[..., 1:].sum(-1, keepdim=True), tokens[..., 1:]], -1)
    return logs.unflatten(0, (-1, len(chosen))).sum(1), tokens.unflatten(0, (-1, len(chosen))).flatten(1, 2)


@torch.no_grad()
def frame_log_probabilities(
    model: FractalGen,
    tokens: Int[Tensor, "p t"],
    frames: int,
    groups: Sequence[int],
    orders: int,
    bar: tqdm | None = None,
) -> Float[Tensor, "o t"]:
    """Log-probability of each of the first ``frames`` of a roll under ``orders`` random orders (torch's global state).

    ``groups`` are the first level's rows in which anything may sound.  All other rows and frames are known.
    """
    config, device = model.config, model.device
    patch = config.patch
    step = torch.arange(tokens.shape[1], device=device)
    open_rows = torch.zeros(config.pitches // patch, dtype=torch.bool, device=device)
    open_rows[list(groups)] = True
    hidden = open_rows.repeat_interleave(patch)[:, None] & (step < frames)
    given = torch.where(hidden, -1, tokens.to(device)).repeat(orders, 1, 1)
    cond = model.condition(None, orders)
    order = torch.stack([torch.randperm(frames, device=device) for _ in range(orders)])
    result = torch.zeros(orders, frames, device=device, dtype=cond.vector.dtype)
    every = torch.arange(orders, device=device)
    for now in order.T:
        truth = tokens.to(device)[:, now].T
        ranks = torch.stack([torch.randperm(len(groups), device=device) for _ in range(orders)])
        for turn in range(len(groups)):
            for place, row in enumerate(groups):  # orderings whose turn it is with this group
                mine = every[ranks[:, place] == turn]
                if not len(mine):
                    continue
                cells = slice(row * patch, (row + 1) * patch)
                seen = given[mine]
                blank = torch.where(seen >= 0, seen, config.vocabulary)
                regions = Regions(surround(blank, model.root.margin, config.vocabulary + 1), seen)
                logs, marginals = column(
                    model.root,
                    regions,
                    cond.each(lambda x, mine=mine: x[mine]),  # type: ignore[misc]
                    now[mine],
                    truth[mine, cells],
                    rows=[row],
                )
                result[mine, now[mine]] += logs
                given[mine, cells, now[mine]] = marginals.argmax(-1)
        given[every, :, now] = truth
        if bar is not None:
            bar.update(1)
    return result


def run(args: argparse.Namespace) -> None:
    """Score the songs of a split, print the figures and write them."""
    model, corpus = load_pretrained(args.checkpoint), Corpus.open(args.data)
    config = model.config
    if any(level.generator != "mar" for level in config.levels):
        kinds = " ".join(level.generator for level in config.levels)
        raise UserError(
            f"--checkpoint {args.checkpoint}: its levels are {kinds}; the protocol needs mar at every level"
        )
    for name in ("velocity_bins", "steps_per_quarter"):
        if getattr(corpus, name) != getattr(config, name):
            raise UserError(
                f"--data {args.data}: {name} {getattr(corpus, name)}, the model has {getattr(config, name)}"
            )
    patch, length = config.patch, config.crop_length
    pitches = np.concatenate([corpus.notes(song)["pitch"] for song in corpus.indices("train") or range(len(corpus))])
    groups = sorted(set((pitches // patch).tolist()))
    songs = evenly(corpus.indices(args.split), args.songs)
    torch.manual_seed(args.seed)
    nats, counts = [], []
    with tqdm(total=sum(corpus.num_steps(song) for song in songs), desc="scoring", unit="frame") as bar:
        for song in songs:
            total = 0.0
            for start in range(0, corpus.num_steps(song), length):
                frames = min(length, corpus.num_steps(song) - start)
                width = -(-frames // patch) * patch
                roll = torch.from_numpy(corpus.tokens(song, start, start + width).astype(np.int64))
                with autocast(args.precision, model.device):
                    logs = frame_log_probabilities(model, roll, frames, groups, args.orders, bar)
                total -= float((logs.logsumexp(0) - math.log(args.orders)).sum())
            nats.append(total)
            counts.append(corpus.num_steps(song))
    result = {
        "model": model.checkpoint_id,
        "corpus": corpus.path.stem,
        "split": args.split,
        "protocol": "frame-wise",
        "orders": args.orders,
        "precision": choose_precision(args.precision, model.device),
        "nats_per_frame": sum(nats) / sum(counts),
        "stderr": ratio_error(nats, counts, songs),
        "frames": sum(counts),
        "songs": len(songs),
        "pitches": [groups[0] * patch, (groups[-1] + 1) * patch - 1],
    }
    print(json.dumps(result, indent=2))
    if args.json:
        write_json(args.json, result)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = Parser(prog="python -m benchmarks.framewise", description="the frame-wise protocol on chorales")
    top.add_argument("--checkpoint", required=True, help="a model that is mar at every level")
    top.add_argument("--data", required=True, help="packed corpus")
    top.add_argument("--split", default="test", choices=SPLITS, help="songs to score")
    top.add_argument("--orders", type=int, default=5, help="random orderings averaged")
    top.add_argument("--songs", type=int, default=0, help="score at most so many songs, evenly spread (0: all)")
    top.add_argument("--seed", type=int, default=0, help="seed of the orderings")
    top.add_argument("--precision", default="auto", choices=get_args(Precision), help="arithmetic (auto: the faster)")
    top.add_argument("--json", help="file for the figures")
    return exit_status("framewise", lambda: run(top.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
