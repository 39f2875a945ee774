"""How estimated chords agree with annotated ones, and bars with those that they come back to, in a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.sheets import codes_at
from fractalgen.data.corpus import Corpus
from fractalgen.music.bars import BarLayout
from fractalgen.music.chord_estimate import estimate_chords
from fractalgen.music.chords import QUALITIES, Chord
from fractalgen.music.form import bar_features
from fractalgen.music.plan import plan_of, unit_chords
from fractalgen.music.tokens import grid_steps

Tokens = npt.NDArray[np.uint8]


def agreement(wanted: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> dict[str, float]:
    """Shares of chords with the same root, the same root and third, the same quality too, and the same bass.

    Only where a chord is ``wanted``; no chord agrees with none.
    """
    thirds = [3 in notes for notes in QUALITIES.values()]
    counts = np.zeros(4)
    total = 0
    for code, other in zip(wanted.tolist(), found.tolist(), strict=True):
        one, two = Chord.of(code), Chord.of(other)
        if one is None:
            continue
        total += 1
        if two is not None:
            root = one.root == two.root
            minor = root and thirds[one.quality] == thirds[two.quality]
            same = root and one.quality == two.quality
            counts += [root, minor, same, (one.root + one.bass) % 12 == (two.root + two.bass) % 12]
    names = ("root", "root and third", "quality", "bass")
    return dict(zip(names, (counts / max(1, total)).tolist(), strict=True))


def columns_of(layout: BarLayout, tokens: Tokens) -> Tokens:
    """Tokens (columns, 128, patch)."""
    return layout.lay(tokens).reshape(len(tokens), len(layout), layout.patch).transpose(1, 0, 2)


def heard_chords(tokens: Tokens, layout: BarLayout) -> npt.NDArray[np.int64]:
    """The chords of the units of a layout, estimated."""
    beats = np.arange(0, tokens.shape[1], layout.patch // 4)
    codes = estimate_chords(tokens, beats, layout.starts)
    return unit_chords(layout, tuple(zip(beats.tolist(), codes.tolist(), strict=True)))


def of_corpus(corpus: Corpus, songs: Sequence[int]) -> dict[str, Any]:
    """Agreement of estimated chords with the corpus's own, and likeness of bars to those that they come back to."""
    wanted, found, likeness, roots, chance, returning = [], [], [], [], [], []
    random = np.random.default_rng(0)
    for song in tqdm(songs, desc="songs", unit="song"):
        tokens, meters, steps = corpus.tokens(song), corpus.meters(song), corpus.num_steps(song)
        beats = grid_steps(meters, steps, corpus.steps_per_quarter, "beat")
        wanted.append(codes_at(corpus.chords(song), beats))
        found.append(estimate_chords(tokens, beats, corpus.downbeats(song)))
        layout = BarLayout.of(meters, steps, corpus.steps_per_quarter, 4 * corpus.steps_per_quarter)
        plan = plan_of(layout, tokens, meters, corpus.steps_per_quarter, corpus.chords(song))
        features = bar_features(columns_of(layout, tokens))
        chords = plan.chords.reshape(len(plan), -1)
        returning.append(plan.returns >= 0)
        for column in np.flatnonzero(plan.returns >= 0).tolist():
            likeness.append(float(features[column] @ features[plan.returns[column]]))
            roots.append(same_roots(chords[column], chords[plan.returns[column]]))
            chance.append(same_roots(chords[column], chords[random.integers(column)]))
    return {
        "songs": len(songs),
        "chords": agreement(np.concatenate(wanted), np.concatenate(found)),
        "bars that come back": float(np.concatenate(returning).mean()),
        "likeness": float(np.mean(likeness)),
        "same chord roots": float(np.mean(roots)),
        "same chord roots as a random bar before": float(np.mean(chance)),
    }


def same_roots(one: npt.NDArray[np.int64], two: npt.NDArray[np.int64]) -> float:
    """The share of units with chords of the same root."""
    roots = [[None if (chord := Chord.of(int(code))) is None else chord.root for code in bar] for bar in (one, two)]
    return float(np.mean([a is not None and a == b for a, b in zip(*roots, strict=True)]))
