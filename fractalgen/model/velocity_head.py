"""The last level: a single cell that is known to sound."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fractalgen.config import LevelConfig, ModelConfig
from fractalgen.model.embeddings import mlp
from fractalgen.model.grid import Margin
from fractalgen.model.losses import LossTerms, wide
from fractalgen.model.regions import Condition, Regions
from fractalgen.model.schedule import Schedule
from fractalgen.model.transformer import Transformer
from fractalgen.music.tokens import HOLD, NO_HOLD, ONSET, SILENCE

CENTRES = 9  # of the triangular basis in which velocities are told
HEADS, KEY = 4, 16  # of the attention to nearby notes, and the width of its keys


class VelocityHead(nn.Module):
    """The last level: one cell that is known to sound.  The gate above has ruled silence out.

    ``ar``: the articulation (hold or onset), then for an onset its velocity; ``mar``: both as one categorical.
    A hold after a cell known to be silent has probability zero, so autoregressive levels never leave an orphan.
    """

    height = 1
    numbers = 2  # random numbers that a region takes

    def __init__(self, config: LevelConfig, parent_width: int, model: ModelConfig, index: int) -> None:
        super().__init__()
        self.name, self.index, self.joint = f"L{index}", index, config.generator == "mar"
        self.margin = Margin(*config.context).union(Margin(past=1))
        self.cond = nn.Linear(parent_width, config.width)
        self.nearby = NearbyNotes(config.width, self.margin, model.velocity_bins) if any(config.context) else None
        self.transformer = Transformer(config.width, config.depth, config.heads, model.dropout)
        if self.joint:
            self.token = nn.Linear(config.width, 1 + model.velocity_bins)
        else:
            self.articulation = nn.Linear(config.width, 2)
            self.struck = nn.Parameter(0.02 * torch.randn(config.width))
            self.velocity = nn.Linear(config.width, model.velocity_bins)

    def cell(self, canvas: Int[Tensor, "m h w"], steps_before: int = 0) -> Int[Tensor, " m"]:
        """The cells themselves in the middle of their windows, or what lies so many steps before them."""
        return canvas[:, self.margin.pitch, self.margin.past - steps_before]

    def first(self, regions: Regions, cond: Condition) -> tuple[Tensor, Tensor]:
        """Logits of the first decision, whose entry 0 is the hold, and the embedded condition."""
        x: Tensor = self.cond(cond.vector)
        if self.joint:
            x = self.beside_notes(x, regions.canvas)
        return self.choice(self.transformer(x[:, None], causal=True)[:, 0], regions), x

    def choice(self, y: Float[Tensor, "sm d"], regions: Regions) -> Float[Tensor, "sm c"]:
        """Logits of the first decision; no hold follows silence, or a given note that ends there."""
        logits = (self.token if self.joint else self.articulation)(y)
        ruled_out = self.cell(regions.canvas, steps_before=1) == SILENCE
        if regions.given is not None:
            ruled_out = ruled_out | (regions.given[:, 0, 0] == NO_HOLD)
        ruled_out = ruled_out.repeat(len(logits) // max(len(ruled_out), 1))
        return torch.cat([logits[:, :1].masked_fill(ruled_out[:, None], float("-inf")), logits[:, 1:]], 1)

    def struck_share(self, vector: Float[Tensor, "s m d"], canvas: Int[Tensor, "m h w"]) -> Float[Tensor, "s m"]:
        """Log probability of cells that sound to be struck: what is left to them where a hold is ruled out."""
        logits = wide(self.first(Regions(canvas), Condition.plain(vector.flatten(0, 1)))[0])
        return (logits[:, 1:].logsumexp(1) - logits.logsumexp(1)).unflatten(0, (len(vector), -1))

    def beside_notes(self, x: Float[Tensor, "sm d"], canvas: Int[Tensor, "m h w"]) -> Float[Tensor, "sm d"]:
        """Embedded conditions of cells, for each guidance stream, and with them the notes around the cells."""
        return x if self.nearby is None else x + self.nearby(x, canvas)

    def pair(self, x: Float[Tensor, "sm d"], canvas: Int[Tensor, "m h w"]) -> Float[Tensor, "sm 2 d"]:
        """What the transformer gets: the condition, and that the cell is struck beside these notes."""
        return torch.stack([x, self.beside_notes(x, canvas) + self.struck], 1)

    def velocities(self, x: Float[Tensor, "m d"], canvas: Int[Tensor, "m h w"]) -> Float[Tensor, "m v"]:
        """Velocity logits of struck cells."""
        return self.velocity(self.transformer(self.pair(x, canvas), causal=True)[:, 1])

    def nll(
        self,
        regions: Regions,
        cond: Condition,
        crop: Int[Tensor, " m"],
        weight: Float[Tensor, " m"],
        losses: LossTerms,
        schedule: Schedule | None = None,
    ) -> None:
        """Add up the NLL of cells that sound."""
        token = self.cell(regions.canvas).long()
        logits, x = self.first(regions, cond)
        choice = token - HOLD if self.joint else (token >= ONSET).long()
        onset = token >= ONSET
        flat = losses.flat[crop]
        if self.joint:  # of a velocity that means nothing only the onset is scored
            struck = torch.cat([logits[:, :1], logits[:, 1:].logsumexp(1, keepdim=True)], 1)
            logits = torch.where(flat[:, None], F.pad(struck, (0, logits.shape[1] - 2), value=float("-inf")), logits)
            choice = torch.where(flat, choice.clamp(max=1), choice)
        nats = F.cross_entropy(wide(logits), choice, reduction="none")
        name = f"{self.name}/{'token' if self.joint else 'articulation'}"
        for kind, mine in (("onset", onset), ("hold", ~onset)):
            losses.add(name, nats[mine], crop[mine], weight[mine], kind)
        if not self.joint:
            onset = onset & ~flat
            nats = F.cross_entropy(
                wide(self.velocities(x[onset], regions.canvas[onset])), token[onset] - ONSET, reduction="none"
            )
            losses.add(f"{self.name}/velocity", nats, crop[onset], weight[onset], kind="velocity")


class NearbyNotes(nn.Module):
    """The notes that are struck around a cell, as far as it sees them: attention with one query, the cell's condition.

    Keys are places in the window, values the velocities there.  So the head can look for the last note of the same
    voice, or for what is struck together with this one.
    """

    def __init__(self, width: int, margin: Margin, velocity_bins: int) -> None:
        super().__init__()
        rows, columns = 2 * margin.pitch + 1, margin.past + 1 + margin.future
        self.own = margin.pitch * columns + margin.past
        pitch, time = (torch.arange(count) - own for count, own in ((rows, margin.pitch), (columns, margin.past)))
        distance = (pitch.abs()[:, None] / 4 + time.abs() / 8).flatten()
        self.near = nn.Parameter(-distance * torch.logspace(-1, 1, HEADS, base=4)[:, None])
        self.place = nn.Parameter(0.02 * torch.randn(HEADS, rows * columns, KEY))
        self.query = nn.Linear(width, HEADS * KEY)
        self.nothing = nn.Parameter(torch.full((HEADS, 1), -4.0))
        centre = torch.linspace(0, velocity_bins - 1, CENTRES)
        apart = (torch.arange(velocity_bins)[:, None] - centre).abs() * (CENTRES - 1) / max(velocity_bins - 1, 1)
        self.basis = nn.Buffer((1 - apart).clamp(min=0), persistent=False)
        self.out = mlp(HEADS * (CENTRES + 1) + width, width)
        for parameter in self.out[2].parameters():  # says nothing at first
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "sm d"], canvas: Int[Tensor, "m h w"]) -> Float[Tensor, "sm d"]:
        """What to add to the embedded conditions ``x`` of cells in the middle of their windows."""
        streams = len(x) // max(len(canvas), 1)
        cells = canvas.flatten(1).repeat(streams, 1)
        struck = self.struck(cells)
        score = torch.einsum("mhk,hnk->mhn", self.query(x).unflatten(1, (HEADS, KEY)), self.place.to(x)) + self.near
        score = score.masked_fill(~struck[:, None], float("-inf"))
        weight = torch.cat([score, self.nothing.expand(len(x), -1, -1).to(score)], 2).softmax(2)
        velocity = self.basis[(cells - ONSET).clamp(0, len(self.basis) - 1)]
        seen = torch.einsum("mhn,mnk->mhk", weight[..., :-1], velocity.to(weight))
        seen = torch.cat([seen, weight[..., -1:]], 2).flatten(1)
        return self.out(torch.cat([seen, x], 1))

    def struck(self, cells: Int[Tensor, "m n"]) -> Bool[Tensor, "m n"]:
        """Cells known to be struck; a cell does not see itself."""
        struck = (cells >= ONSET) & (cells < ONSET + len(self.basis))
        struck[:, self.own] = False
        return struck
