"""The baseline: a plain decoder-only transformer over note events, in exact likelihood comparable with FractalGen.

The notes of a crop, sorted by (onset, pitch), are written as four tokens each: *shift* (steps since the previous
note's onset; the first note's from column 0), *pitch*, *velocity* (a bin, or ``held``: the note began before the crop)
and *duration* (steps, up to the crop's edge or the next onset on its pitch).  A last shift token, ``end``, closes the
crop.  Impossible tokens are masked out of every softmax, so each roll has exactly one token sequence, each sequence
that can be drawn is a roll, and ``-log p(tokens) = -log p(roll)``.  Only rolls with an orphan hold after column 0
have no sequence; cut from notes, no crop has one.

Training and scoring: ``python -m benchmarks.note_events train --help`` and ``... evaluate --help``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from fractalgen.config import SamplingConfig
from fractalgen.errors import UserError
from fractalgen.model.sampling.token_sampler import TokenSampler
from fractalgen.model.transformer import Decoder, Transformer
from fractalgen.music.tokens import HOLD, ONSET, SILENCE, notes_from_tokens

KINDS = ("shift", "pitch", "velocity", "duration")
"""The four tokens of a note, in order; note tables have the same columns but the absolute onset in shift's place."""


@dataclass(frozen=True)
class NoteEventConfig:
    """The roll (``pitches`` by ``steps`` cells), and the transformer; the default has 7.8 M parameters."""

    pitches: int = 128
    steps: int = 256
    velocity_bins: int = 32
    steps_per_bar: int = 16
    width: int = 256
    depth: int = 9
    heads: int = 4
    max_notes: int = 1024  # rows of the table of note numbers (later notes share the last), and the most drawn

    @property
    def end(self) -> int:
        """The shift token that closes a crop."""
        return self.steps

    @property
    def held(self) -> int:
        """The velocity token of a note that began before the crop."""
        return self.velocity_bins

    @property
    def vocabulary(self) -> tuple[int, int, int, int]:
        """Number of tokens of each kind; durations 1, 2 ... are tokens 0, 1 ..."""
        return self.steps + 1, self.pitches, self.velocity_bins + 1, self.steps


def encode(roll: npt.NDArray[np.integer], config: NoteEventConfig) -> npt.NDArray[np.int64]:
    """Notes (n, 4) of a roll (pitches, steps), sorted: onset, pitch, velocity bin or ``held``, duration in steps.

    Raises:
        UserError: a roll of another size, or one with an orphan hold after column 0.
    """
    if roll.shape != (config.pitches, config.steps):
        raise UserError(f"a roll has shape {(config.pitches, config.steps)} here, not {roll.shape}")
    if roll.size and roll.max() >= ONSET + config.velocity_bins:
        raise UserError(f"token {roll.max()}: velocity_bins is {config.velocity_bins}")
    notes = notes_from_tokens(roll.astype(np.uint8), config.velocity_bins)
    onset, pitch = notes["start"].astype(np.int64), notes["pitch"].astype(np.int64)
    held = roll[pitch, onset] == HOLD
    if (held & (onset > 0)).any():
        raise UserError("a roll with an orphan hold after column 0 is no sequence of notes")
    velocity = np.where(held, config.held, notes["velocity"])
    return np.stack([onset, pitch, velocity, notes["duration"]], 1).astype(np.int64)


def decode(notes: npt.NDArray[np.integer], config: NoteEventConfig) -> npt.NDArray[np.uint8]:
    """The roll (pitches, steps) of a table of notes: the inverse of :func:`encode`."""
    roll = np.full((config.pitches, config.steps), SILENCE, np.uint8)
    for onset, pitch, velocity, duration in notes.tolist():
        roll[pitch, onset : onset + duration] = HOLD
        if velocity != config.held:
            roll[pitch, onset] = ONSET + velocity
    return roll


@dataclass
class State:
    """What a prefix of whole notes leaves possible: its last onset and pitch, and when each pitch falls silent."""

    onset: Int[Tensor, "*b"]
    pitch: Int[Tensor, "*b"]  # -1: no note yet
    busy_until: Int[Tensor, "*b p"]

    def shifts(self, config: NoteEventConfig, steps: Int[Tensor, "*b"] | None = None) -> Bool[Tensor, "*b t_plus_1"]:
        """Shifts to a step inside the crop (of ``steps``, or of all) where some pitch can be struck; ``end`` always."""
        step = self.onset[..., None] + torch.arange(config.steps, device=self.onset.device)
        inside = step < (config.steps if steps is None else steps[..., None])
        later = inside & (step >= self.busy_until.amin(-1, keepdim=True))
        later[..., 0] = self.pitches(self.onset, config).any(-1)
        return torch.cat([later, torch.ones_like(later[..., :1])], -1)

    def pitches(self, onset: Int[Tensor, "*b"], config: NoteEventConfig) -> Bool[Tensor, "*b p"]:
        """Pitches that do not sound at step ``onset``; above the last one where that was struck at the same step."""
        above = torch.arange(config.pitches, device=onset.device) > self.pitch[..., None]
        return (self.busy_until <= onset[..., None]) & (above | (onset > self.onset)[..., None])


def velocities(onset: Int[Tensor, "*b"], config: NoteEventConfig) -> Bool[Tensor, "*b v_plus_1"]:
    """All bins; ``held`` at column 0 only."""
    return (torch.arange(config.velocity_bins + 1, device=onset.device) != config.held) | (onset == 0)[..., None]


def durations(
    onset: Int[Tensor, "*b"], config: NoteEventConfig, steps: Int[Tensor, "*b"] | None = None
) -> Bool[Tensor, "*b t"]:
    """Durations that end inside the crop (of ``steps``, or of all)."""
    left = (config.steps if steps is None else steps) - onset
    return torch.arange(config.steps, device=onset.device) < left[..., None]


class NoteEventTransformer(nn.Module):
    """A pre-norm causal transformer; position ``4 i + k`` of its sequence predicts token kind ``k`` of note ``i``.

    What position ``4 i + k`` is told is the sum of what is known of the note being written (at ``k = 0``: of the whole
    previous note): its shift, absolute onset, place in the bar, pitch, velocity, duration, besides ``k`` and ``i``.
    """

    def __init__(self, config: NoteEventConfig) -> None:
        super().__init__()
        self.config = config
        shifts, pitches, velocities, durations = config.vocabulary
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, config.width) for size in (shifts - 1, pitches, velocities, durations)
        )
        self.onset = nn.Embedding(config.steps, config.width)
        self.place = nn.Embedding(config.steps_per_bar, config.width)
        self.bar = nn.Embedding(-(-config.steps // config.steps_per_bar), config.width)
        self.kind = nn.Embedding(len(KINDS), config.width)
        self.number = nn.Embedding(config.max_notes, config.width)
        self.start = nn.Parameter(torch.empty(config.width))
        self.transformer = Transformer(config.width, config.depth, config.heads)
        self.heads = nn.ModuleList(nn.Linear(config.width, size) for size in config.vocabulary)
        nn.init.normal_(self.start, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def told(self, kind: int, token: Int[Tensor, "*b"], onset: Int[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        """What a token adds to the knowledge of its note; a shift brings the absolute ``onset`` that it leads to."""
        value = self.embeddings[kind](token)
        if KINDS[kind] == "shift":
            value = value + self.onset(onset)
            value = value + self.place(onset % self.config.steps_per_bar) + self.bar(onset // self.config.steps_per_bar)
        return value

    def label(self, kind: int, number: Int[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        """Embedding of a position: the kind that it predicts, of which note."""
        return self.kind.weight[kind] + self.number(number.clamp(max=self.config.max_notes - 1))

    def log_probabilities(
        self, kind: int, hidden: Float[Tensor, "m d"], allowed: Bool[Tensor, "m v"]
    ) -> Float[Tensor, "m v"]:
        """Normalised over the allowed tokens of a kind, in float32 also under autocast."""
        with torch.autocast(hidden.device.type, enabled=False):
            head = self.heads[kind]
            logits = head(hidden.to(self.start.dtype))
        return logits.masked_fill(~allowed, float("-inf")).log_softmax(-1)

    def nll(
        self, rolls: Int[Tensor, "b p t"], steps: Int[Tensor, " b"] | None = None
    ) -> dict[str, Float[Tensor, " b"]]:
        """Exact negative log-likelihood (nats) of rolls, by token kind; the sum is that of the roll.

        ``steps``: how many steps each roll is known to have, by default all; it is silent behind them.

        Raises:
            UserError: rolls that :func:`encode` refuses.
        """
        return self.nll_of_notes([encode(roll, self.config) for roll in rolls.cpu().numpy()], steps)

    def nll_of_notes(
        self, tables: Sequence[npt.NDArray[np.int64]], steps: Int[Tensor, " b"] | None = None
    ) -> dict[str, Float[Tensor, " b"]]:
        """As :meth:`nll`, of tables made by :func:`encode`; short ones are padded at the end."""
        config, device = self.config, self.start.device
        known = None if steps is None else steps.to(device)[:, None]
        count = torch.tensor([len(table) for table in tables], device=device)
        notes = torch.zeros(len(tables), int(count.max()), 4, dtype=torch.int64)
        notes[..., 3] = 1  # padding has to be embedded, and is not looked at
        for row, table in zip(notes, tables, strict=True):
            row[: len(table)] = torch.from_numpy(table)
        notes = notes.to(device)
        onset, pitch, velocity, duration = notes.unbind(-1)
        written = torch.arange(notes.shape[1], device=device) < count[:, None]

        ends = F.one_hot(pitch, config.pitches) * (onset + duration)[..., None]
        before = State(  # the state before each note, and after the last one
            F.pad(onset, (1, 0)), F.pad(pitch, (1, 0), value=-1), F.pad(ends, (0, 0, 1, 0)).cummax(1).values
        )
        shift = (onset - before.onset[:, :-1]).clamp(min=0)  # clamp: padding
        first = State(before.onset[:, :-1], before.pitch[:, :-1], before.busy_until[:, :-1])

        tokens = (shift, pitch, velocity, duration - 1)
        hidden = self.transformer(self.inputs(tokens, onset), causal=True)
        closing = F.pad(written, (1, 0), value=True)  # shift positions: one for each note, and one for ``end``
        shift = F.pad(shift, (0, 1)).scatter(1, count[:, None], config.end)
        targets = (shift, *tokens[1:])
        allowed = (
            before.shifts(config, known),
            first.pitches(onset, config),
            velocities(onset, config),
            durations(onset, config, known),
        )
        result = {}
        for kind, name in enumerate(KINDS):
            chosen = closing if kind == 0 else written
            logs = self.log_probabilities(kind, hidden[:, kind::4][chosen], allowed[kind][chosen])
            values = logs.gather(1, targets[kind][chosen][:, None])[:, 0]
            rows = chosen.nonzero()[:, 0]
            result[name] = -torch.zeros(len(tables), dtype=values.dtype, device=device).index_add(0, rows, values)
        return result

    def inputs(self, tokens: Sequence[Int[Tensor, "b n"]], onset: Int[Tensor, "b n"]) -> Float[Tensor, "b m d"]:
        """What each of the ``4 n + 1`` positions is told."""
        batch, notes = onset.shape
        number = torch.arange(notes + 1, device=onset.device)
        known = torch.stack([self.told(kind, token, onset) for kind, token in enumerate(tokens)], 2).cumsum(2)
        whole = torch.cat([self.start.expand(batch, 1, -1), known[:, :, 3]], 1) + self.label(0, number)
        partial = [known[:, :, kind - 1] + self.label(kind, number[:-1]) for kind in (1, 2, 3)]
        sequence = torch.stack([whole[:, :-1], *partial], 2).flatten(1, 2)
        return torch.cat([sequence, whole[:, -1:]], 1)


@torch.no_grad()
def sample(
    model: NoteEventTransformer, n: int, seed: int, temperature: float = 1.0, batch_size: int = 8
) -> npt.NDArray[np.uint8]:
    """Draw ``n`` rolls, uint8 (n, pitches, steps), ``batch_size`` at a time; the same seed gives the same rolls.

    A roll that has not ended after ``max_notes`` notes stops there.
    """
    device = model.start.device
    sampler = TokenSampler(SamplingConfig(temperature=temperature), torch.Generator(device).manual_seed(seed), device)
    with tqdm(total=n * model.config.steps, desc="sampling", unit="step", leave=False) as bar:
        rolls = []
        for first in range(0, n, batch_size):
            rolls += _sample_batch(model, min(batch_size, n - first), sampler, bar)
    return np.stack(rolls)


def _sample_batch(
    model: NoteEventTransformer, size: int, sampler: TokenSampler, bar: tqdm
) -> list[npt.NDArray[np.uint8]]:
    config, device = model.config, model.start.device
    zero = torch.zeros(size, dtype=torch.int64, device=device)
    state = State(zero, zero - 1, torch.zeros(size, config.pitches, dtype=torch.int64, device=device))
    decoder = Decoder(model.transformer, size, 4 * config.max_notes)
    row = torch.arange(size, device=device)[:, None]
    known = model.start.expand(size, -1)
    going = torch.ones(size, dtype=torch.bool, device=device)
    tables = []
    reached = 0

    def choose(kind: int, number: int, allowed: Tensor) -> Tensor:
        """The next token; rows that have ended go on with whatever is drawn, and it is thrown away."""
        position = row.new_full((size, 1), 4 * number + kind)
        hidden = decoder((known + model.label(kind, zero + number))[:, None], row, position)[:, 0]
        logs = model.log_probabilities(kind, hidden, allowed | ~going[:, None])[None]
        token = sampler.categorical(logs, sampler.uniform(logs.shape[1:2]))
        return torch.where(going, token, 0)

    for number in range(config.max_notes):
        shift = choose(0, number, state.shifts(config))
        going = going & (shift != config.end)
        if not going.any():
            break
        onset = state.onset + torch.where(going, shift, 0)
        known = model.told(0, torch.where(going, shift, 0), onset)
        pitch = choose(1, number, state.pitches(onset, config))
        known = known + model.told(1, pitch, onset)
        velocity = choose(2, number, velocities(onset, config))
        known = known + model.told(2, velocity, onset)
        duration = choose(3, number, durations(onset, config))
        known = known + model.told(3, duration, onset)
        tables.append(torch.stack([onset, pitch, velocity, (duration + 1) * going], 1))
        busy = state.busy_until.scatter(1, pitch[:, None], (onset + duration + 1)[:, None])
        state = State(onset, pitch, busy)
        bar.update(int(onset.sum()) - reached)
        reached = int(onset.sum())
    bar.update(size * config.steps - reached)
    notes = torch.stack(tables, 1).cpu().numpy() if tables else np.zeros((size, 0, 4), np.int64)
    return [decode(table[table[:, 3] > 0], config) for table in notes]


if __name__ == "__main__":
    from benchmarks.train_note_events import main

    sys.exit(main())
