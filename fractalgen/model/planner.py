"""The planner: the level above the roll.  It draws a plan column by column, or scores one, exactly.

A column is a bar, or a part of a long one.  A small autoregressive transformer over the columns of a piece decides in
each of them which earlier one comes back, then the chord of each beat: its root, given that its quality, given both its
bass.  It is shown the chords of what comes back, how many bars are left, and the key if one is asked for; roots are
counted from the tonic of that key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fractalgen.config.model import PLANNER_HEADS
from fractalgen.model.degrees import lowest_degree
from fractalgen.model.embeddings import Place
from fractalgen.model.grid import Grid
from fractalgen.model.harmony import FEATURES, chord_table, seen_from
from fractalgen.model.losses import wide
from fractalgen.model.plans import MOST_BACK, Plans
from fractalgen.model.transformer import Decoder, Transformer
from fractalgen.music.bars import units_of
from fractalgen.music.chords import FIRST, NO_CHORD, QUALITIES, UNTOLD
from fractalgen.music.plan import MOST_LEFT

DEPTH = 3
ROOTS = 13  # no chord, or one of 12 roots
Draw = Callable[[Float[Tensor, "b v"]], Int[Tensor, " b"]]
"""Draws an entry of each row of logits."""


class Planner(nn.Module):
    """Draws and scores plans; ``columns`` is how many columns it sees at once, ``column`` their steps."""

    def __init__(self, width: int, columns: int, column: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.columns, self.units = columns, units_of(column)
        self.transformer = Transformer(width, DEPTH, PLANNER_HEADS, dropout)
        self.table = nn.Buffer(chord_table(), persistent=False)
        self.chord = nn.Linear(FEATURES, width)  # the decision before
        self.pointed = nn.Linear(2 * FEATURES, width, bias=False)  # of the bar that comes back: this chord and the next
        self.back = nn.Embedding(MOST_BACK + 2, width)  # 0: not told
        self.left = nn.Embedding(MOST_LEFT + 1, width)
        self.key = nn.Embedding(3, width)  # none, major, minor
        self.place = Place(1 + self.units, width)  # "rows" are the decisions of a column
        self.to_back = nn.Linear(width, 1 + MOST_BACK)
        self.root, self.quality = nn.Embedding(ROOTS, width), nn.Embedding(len(QUALITIES), width)
        self.to_root, self.to_quality = nn.Linear(width, ROOTS), nn.Linear(width, len(QUALITIES))
        self.to_bass = nn.Linear(width, 12)

    def inputs(self, plans: Plans, key: Int[Tensor, " b"]) -> Float[Tensor, "b n d"]:
        """What the transformer reads at each decision: the one before it, and what is known beforehand.

        ``plans`` cover at most as many columns as the planner sees, their roots are counted from the tonic; ``n``: the
        decisions of all columns.  Chords and returns of later places are not looked at.
        """
        columns = plans.back.shape[1]
        table: Tensor = self.table
        told = self.back((plans.back + 1).clamp(max=MOST_BACK + 1))[:, :, None]
        chords = self.chord(F.embedding(plans.chords, table)).unflatten(1, (columns, self.units))
        decided = torch.cat([told, chords], 2).flatten(1, 2)
        x = F.pad(decided[:, :-1], (0, 0, 1, 0)).unflatten(1, (columns, -1))
        places = self.place(Grid(1 + self.units, columns, 1, 1)).unflatten(0, (columns, -1))
        x = x + places + self.left(plans.left)[:, :, None] + self.key(key)[:, None, None]
        source = pointed_chords(plans, self.units)
        source = torch.stack([source, F.pad(source[..., 1:], (0, 1), value=UNTOLD)], -1)  # with the next in that bar
        seen = self.pointed(F.embedding(source, table).flatten(-2))
        return (x + F.pad(seen, (0, 0, 1, 0))).flatten(1, 2)

    def nll(self, plans: Plans, key: Int[Tensor, " b"], decided: Plans | None = None) -> dict[str, Float[Tensor, " b"]]:
        """Negative log-probability in nats of returns and of chords, of those that are told.

        Returns from farther than ``MOST_BACK`` columns are never drawn and cost nothing.
        ``key``: labels, 0 for none.  What is told in ``decided`` is known beforehand and costs nothing.
        """
        decided = plans.untold() if decided is None else decided
        turned, mode, _ = turn(plans, key)
        states = self.transformer(self.inputs(turned, mode), causal=True).unflatten(1, (-1, 1 + self.units))
        columns = torch.arange(plans.back.shape[1], device=plans.back.device)
        logits = possible_back(wide(self.to_back(states[:, :, 0])), plans.before[:, None] + columns)
        scored = (plans.back >= 0) & (plans.back <= MOST_BACK) & (decided.back < 0)
        returns = F.cross_entropy(logits.transpose(1, 2), plans.back.clamp(0, MOST_BACK), reduction="none")
        scored_chords = (plans.chords != UNTOLD) & (decided.chords == UNTOLD)
        root, quality, bass = parts(turned.chords)
        h = states[:, :, 1:].flatten(1, 2)

        def cost(logits: Tensor, target: Tensor) -> Tensor:
            return F.cross_entropy(wide(logits).transpose(1, 2), target, reduction="none")

        chords = cost(self.to_root(h), root)
        h = h + self.root(root)
        inside = cost(self.to_quality(h), quality) + cost(self.to_bass(h + self.quality(quality)), bass)
        chords = chords + inside * (root > 0)
        return {"plan/returns": (returns * scored).sum(1), "plan/chords": (chords * scored_chords).sum(1)}

    @torch.no_grad()
    def draw(
        self, plans: Plans, exists: Bool[Tensor, "b u"], key: Int[Tensor, " b"], draw: Draw, guidance: float = 1.0
    ) -> Plans:
        """Draw whatever is not told of a whole piece; ``exists``: units that have a step.

        It sees as many columns at once as it was made for.  Columns that come back to one before those find it in the
        bank, as in training.  ``guidance`` strengthens the key, beside plans of which no key is told.  Where the bars
        left are not told, many are taken to be left: in training they always were told.
        """
        turned, mode, tonic = turn(plans, key)
        some = exists.unflatten(1, (-1, self.units)).any(-1)
        turned = replace(turned, left=turned.left.masked_fill(some & (turned.left == 0), MOST_LEFT))
        chords, back = turned.chords.clone(), turned.back.clone()
        now = replace(turned, chords=chords, back=back)  # a view of what is decided so far
        guided = guidance != 1 and bool((key > 0).any())

        def twice(x: Tensor) -> Tensor:
            return torch.cat([x, x]) if guided else x

        def mixed(logits: Float[Tensor, "s v"]) -> Float[Tensor, "b v"]:
            """Logits of one decision of each plan, with guidance."""
            if not guided:
                return logits
            told, free = logits.chunk(2)
            return free + guidance * (told - free)

        state = States(self, lambda: now.each(twice), torch.cat([mode, torch.zeros_like(mode)]) if guided else mode)
        for column in range(back.shape[1]):
            if not bool((back[:, column] < 0).any() | self.open(chords, exists, column).any()):
                continue
            if bool((back[:, column] < 0).any()):
                logits = mixed(wide(self.to_back(state(column, 0))))
                drawn = draw(possible_back(logits, plans.before + column))
                back[:, column] = torch.where(back[:, column] < 0, drawn, back[:, column])
            for unit in range(self.units):
                place = column * self.units + unit
                free = self.open(chords, exists, column)[:, unit]
                if not bool(free.any()):
                    continue
                h = state(column, 1 + unit)
                root = draw(mixed(wide(self.to_root(h))))
                h = h + self.root(twice(root))
                quality = draw(mixed(wide(self.to_quality(h))))
                bass = draw(mixed(wide(self.to_bass(h + self.quality(twice(quality))))))
                drawn = torch.where(root > 0, FIRST + ((root - 1) * len(QUALITIES) + quality) * 12 + bass, NO_CHORD)
                chords[:, place] = torch.where(free, drawn, chords[:, place])
        return replace(plans, chords=seen_from(chords, -tonic[:, None]), back=back)

    def open(self, chords: Tensor, exists: Tensor, column: int) -> Bool[Tensor, "b s"]:
        """Units of a column that are to be drawn."""
        here = slice(column * self.units, (column + 1) * self.units)
        return (chords[:, here] == UNTOLD) & exists[:, here]


class States:
    """What each decision of pieces depends on while they are drawn: a transformer that reads every decision once.

    ``plans`` hold what is decided so far; decisions are asked for in their order.  Where the columns that it sees at
    once move on, all places change, and the transformer begins anew.
    """

    def __init__(self, planner: Planner, plans: Callable[[], Plans], key: Int[Tensor, " b"]) -> None:
        self.planner, self.plans, self.key = planner, plans, key
        self.first = -1
        self.rows = torch.arange(len(key), device=key.device)[:, None]

    def __call__(self, column: int, slot: int) -> Float[Tensor, "b d"]:
        """The state of a decision of a column: of which one comes back, or of the chord of unit ``slot - 1``."""
        planner, first = self.planner, max(0, column + 1 - self.planner.columns)
        size = 1 + planner.units
        if first != self.first:
            self.first, self.read = first, 0
            self.decoder = Decoder(planner.transformer, len(self.key), planner.columns * size)
        new = slice(self.read, (column - first) * size + slot + 1)
        inputs = planner.inputs(self.plans().window(first, column + 1), self.key)[:, new]
        places = torch.arange(new.start, new.stop, device=inputs.device).expand(len(inputs), -1)
        self.read = new.stop
        return self.decoder(inputs, self.rows, places)[:, -1]


def possible_back(logits: Float[Tensor, "*b v"], before: Int[Tensor, "*b"]) -> Float[Tensor, "*b v"]:
    """Logits of how many columns back the one lies that comes back (0: none), of the ``before`` that there are."""
    return logits.masked_fill(torch.arange(1 + MOST_BACK, device=logits.device) > before[..., None], float("-inf"))


def parts(codes: Int[Tensor, "*n"]) -> tuple[Tensor, Tensor, Tensor]:
    """Root (0: no chord), quality and bass of chords by their codes."""
    rest = (codes - FIRST).clamp(min=0)
    quality = rest // 12 % len(QUALITIES)
    root = rest // (12 * len(QUALITIES)) + 1
    return torch.where(codes < FIRST, 0, root), quality, rest % 12


def turn(plans: Plans, key: Int[Tensor, " b"]) -> tuple[Plans, Int[Tensor, " b"], Int[Tensor, " b"]]:
    """Plans with roots counted from the tonic, the mode of the key (0: none asked for), and the tonic."""
    degree = lowest_degree(key)  # of a C: how far it lies above the tonic, counted from 1, or from 13 in minor
    tonic = torch.where(key > 0, (1 - degree) % 12, 0)
    mode = torch.where(key > 0, 1 + (key - 1) // 12, 0)
    turned = replace(
        plans,
        chords=seen_from(plans.chords, tonic[:, None]),
        bank_chords=seen_from(plans.bank_chords, tonic[:, None]),
    )
    return turned, mode, tonic


def pointed_chords(plans: Plans, units: int) -> Int[Tensor, "b c s"]:
    """The chords of what each column comes back to, UNTOLD where it is nothing."""
    columns = plans.back.shape[1]
    everything = torch.cat([plans.chords, plans.bank_chords], 1).unflatten(1, (2 * columns, units))
    source = plans.sources
    found = everything.gather(1, source.clamp(min=0)[..., None].expand(-1, -1, units))
    return torch.where(source[..., None] >= 0, found, UNTOLD)
