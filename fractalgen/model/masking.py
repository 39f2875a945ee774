"""What training reveals and hides at random: known cells, as a composer might already have some, labels, and plans."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fractalgen.model.plans import Plans
from fractalgen.music.voices import MELODY, RIGHT


def random_known(
    tokens: Int[Tensor, "b p t"], share: float, voices: Int[Tensor, "b p t"] | None = None
) -> Bool[Tensor, "b p t"]:
    """Known cells for a ``share`` of the crops, none for the others; from torch's global random numbers.

    A crop gets one of six kinds with equal chance: all outside a span of time (a gap to fill, or a beginning to go
    on from), single time steps, all above or below a pitch (a register), the highest note of every step and all above
    it or all below it (a melody, an accompaniment), single cells, or a voice.  Steps and cells are known at a rate
    drawn uniformly.  ``voices`` (see :mod:`fractalgen.music.voices`) says what the cells of notes belong to.  A known
    voice is the melody, or what is no melody, or a hand; and where it sounds, everything on its outer side is known
    too, so that known silence does not say what is not known.  Without voices the highest notes are the melody.
    """
    (batch, pitches, width), device = tokens.shape, tokens.device
    kind = torch.randint(6, (batch, 1, 1), device=device)
    begin, end = (torch.rand(2, batch, 1, 1, device=device).sort(0).values * (width + 1)).long()
    step = torch.arange(width, device=device).expand(batch, 1, width)
    outside = (step < begin) | (step >= end)
    rate = torch.rand(batch, 1, 1, device=device)
    steps = torch.rand(batch, 1, width, device=device) < rate
    pitch = torch.arange(pitches, device=device)[:, None]
    register = pitch >= torch.randint(pitches + 1, (batch, 1, 1), device=device)
    sounding = tokens > 0
    highest = pitches - 1 - sounding.flip(1).byte().argmax(1)
    latest = torch.where(sounding.any(1), step[:, 0], 0).cummax(1).values  # while nothing sounds the note before counts
    melody = pitch >= highest.gather(1, latest)[:, None]
    lower = torch.rand(batch, 1, 1, device=device) < 0.5
    cells = torch.rand(batch, pitches, width, device=device) < rate
    known = torch.zeros(batch, pitches, width, dtype=torch.bool, device=device)
    voice = melody ^ lower if voices is None else known_voice(tokens, voices, melody, lower)
    for number, choice in enumerate((outside, steps, register ^ lower, melody ^ lower, cells, voice)):
        known = torch.where(kind == number, choice, known)
    return known & (torch.rand(batch, 1, 1, device=device) < share)


def known_voice(
    tokens: Int[Tensor, "b p t"],
    voices: Int[Tensor, "b p t"],
    melody: Bool[Tensor, "b p t"],
    lower: Bool[Tensor, "b 1 1"],
) -> Bool[Tensor, "b p t"]:
    """One voice of each crop, or everything but it (``lower``): the melody if there is one, else the right hand.

    Known are the cells of its notes, and above them what sounds nowhere else.  A crop that names no voices has the
    ``melody`` that is given.
    """
    named = torch.stack([(voices == voice).flatten(1).any(1) for voice in (MELODY, RIGHT)], 1)
    wanted = torch.where(named[:, 0], MELODY, RIGHT)[:, None, None]
    mine = voices == wanted
    if bool(named.any()):
        bottom = torch.where(mine.any(1, keepdim=True), mine.byte().argmax(1, keepdim=True), mine.shape[1])
        others = (tokens > 0) & ~mine
        pitch = torch.arange(mine.shape[1], device=mine.device)[:, None]
        mine = mine | ((pitch >= bottom) & ~others)
    return torch.where(named.any(1)[:, None, None], mine, melody) ^ lower


def drop_plans(plans: Plans, share: float) -> Plans:
    """Untell parts of plans at random: all of them for a ``share`` of the crops, as :func:`drop_labels` does.

    Of the other crops chords, returns and bars left are each told three times out of four; of the chords told, a random
    span is left out in one crop of three.  A share of 0 keeps everything.
    """
    if share == 0:
        return plans
    (batch, units), device = plans.chords.shape, plans.chords.device
    some = torch.rand(batch, 1, device=device) >= share
    chords, back, left = some & (torch.rand(3, batch, 1, device=device) < 0.75)
    begin, end = (torch.rand(2, batch, 1, device=device).sort(0).values * (units + 1)).long()
    unit = torch.arange(units, device=device)
    span = (unit >= begin) & (unit < end) & (torch.rand(batch, 1, device=device) < 1 / 3)
    return plans.told(chords & ~span, back.expand_as(plans.back), left.expand_as(plans.left))


def drop_labels(cond_list: Sequence[Int[Tensor, " b"]], share: float) -> list[Int[Tensor, " b"]]:
    """Unset all labels of a ``share`` of the crops, so that the model learns the null condition guidance needs.

    Of the n labels of every other crop a random set of 1 to n is kept, each number being equally usual: so a label
    works alone as well as with all others.  A share of 0 keeps everything.
    """
    if not cond_list or share == 0:
        return list(cond_list)
    labels = torch.stack(list(cond_list))
    count, batch = labels.shape
    kept = torch.randint(1, count + 1, (batch,), device=labels.device)
    kept = kept * (torch.rand(batch, device=labels.device) >= share)
    place = torch.rand(count, batch, device=labels.device).argsort(0).argsort(0)
    return list(labels * (place < kept))
