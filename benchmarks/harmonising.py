"""Chorales: the soprano is given, the voices under it are composed; beside what Bach wrote.

Every held-out chorale (first 16 bars at most) is harmonised once.  The soprano is the highest voice; from the last note
of the chorale on, silence is known.  Both the harmonisations and Bach's own are compared with the chorales of the
training split by the music statistics, parallels among them, and the soprano is checked cell by cell.

    python -m benchmarks.harmonising --checkpoint MODEL --data chorales [--songs N] [--json FILE] [--midi FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import measure, natural, parser
from fractalgen.api import load_pretrained
from fractalgen.data.attributes import measure_attributes
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import ValidCrops, evenly
from fractalgen.errors import UserError
from fractalgen.features.notes import crop_tokens
from fractalgen.features.statistics import compare, comparison_table, music_statistics
from fractalgen.music.labels import Attribute
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tasks import accompaniment

BATCH = 16


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Harmonise, compare, print, and write the harmonisations."""
    corpus = Corpus.open(args.data)
    model = load_pretrained(args.checkpoint)
    config = model.config
    if not config.sees_future:
        raise UserError(f"--checkpoint {args.checkpoint}: an AR model without future context cannot follow a soprano")
    width = config.crop_length
    chosen = []
    for split in ("valid", "test"):
        crops = ValidCrops(corpus, split, width)
        songs = [song for song, _ in crops.crops]
        chosen += [(corpus.song_ids[song], crops[songs.index(song)]) for song in dict.fromkeys(songs)]
    names, items = zip(*evenly(chosen, args.songs), strict=True)
    real = crop_tokens(items)
    known = np.stack([task_of(tokens) for tokens in real]).astype(np.int64)

    generator = torch.Generator().manual_seed(args.seed)
    parts = []
    for start in tqdm(range(0, len(real), BATCH), desc="harmonising", unit="batch"):
        given = torch.from_numpy(known[start : start + BATCH])
        tokens, _ = model.sample(
            len(given),
            labels_of(config.attributes, known[start : start + BATCH], args.polyphony) or None,
            cfg=args.cfg,
            width=width,
            known=given,
            num_iter_list=args.num_iter_list,
            generator=generator,
            filter_threshold=args.filter_threshold,
        )
        parts.append(tokens.numpy().astype(np.uint8))
    made = np.concatenate(parts)
    kept = known >= 0
    same = sum(np.array_equal(one[k], two[k]) for one, two, k in zip(known, made, kept, strict=True))
    steps = 4 * corpus.steps_per_quarter
    reference = music_statistics(crop_tokens(ValidCrops(corpus, "train", width)), steps)
    sets = {"Bach": real, "model": made}
    rows = {name: compare(reference, music_statistics(rolls, steps)) for name, rolls in sets.items()}
    ranges = {name: [int(p) for p in np.percentile(np.nonzero(rolls)[1], (1, 99))] for name, rolls in sets.items()}
    beyond = float(np.mean([given_range(roll, truth) for roll, truth in zip(made, real, strict=True)]))
    print(f"{corpus.path.stem}: {len(real)} sopranos, {same} of them come out cell by cell; reference: training split")
    print(f"pitches, 1st to 99th percentile: {ranges}; composed notes beyond the four voices' ranges {beyond:.2%}")
    print(comparison_table(rows))
    if args.midi:
        for name, roll in zip(names, made, strict=True):
            Path(args.midi).mkdir(parents=True, exist_ok=True)
            piece = PianoRoll(roll, corpus.steps_per_quarter, corpus.velocity_bins, tempos=((0, 80.0),))
            piece.to_midi(Path(args.midi, f"{name}.mid"))
    figures = {"corpus": corpus.path.stem, "sopranos": len(real), "identical": same, "ranges": ranges, "rows": rows}
    return {**figures, "beyond_ranges": beyond}


def task_of(tokens: np.ndarray) -> np.ndarray:
    """Known cells (128, T) for the voices under the soprano; what follows the last note is known silence."""
    length = int(np.flatnonzero(tokens.any(0))[-1]) + 1
    known = np.zeros(tokens.shape, np.int16)
    known[:, :length] = accompaniment(PianoRoll(tokens[:, :length]), "highest", "below", patch=1).known
    return known


def labels_of(attributes: Sequence[Attribute], known: np.ndarray, polyphony: str | None) -> list[torch.Tensor]:
    """Labels for each of the sopranos (n, 128, T), as ``fractalgen generate`` asks: the key that it is in."""
    columns = []
    for attribute in attributes:
        labels = [0] * len(known)
        if attribute.name == "key":
            labels = [attribute.label(measure_attributes(one.clip(0))["key"]) for one in known]
        elif attribute.name == "polyphony" and polyphony is not None:
            labels = [attribute.encode(polyphony)] * len(known)
        columns.append(torch.tensor(labels))
    return columns


def given_range(roll: np.ndarray, truth: np.ndarray) -> float:
    """Share of sounding cells outside the pitches of Bach's own setting of the same soprano, an octave allowed."""
    pitches, own = np.nonzero(roll)[0], np.nonzero(truth)[0]
    return float(((pitches < own.min() - 12) | (pitches > own.max())).mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.harmonising", "chorale sopranos, harmonised")
    top.add_argument("--checkpoint", default="chorales", help="a model that sees future context")
    top.add_argument("--data", default="chorales", help="packed corpus of chorales")
    top.add_argument("--songs", type=natural, default=0, help="at most so many sopranos, evenly spread (0: all)")
    top.add_argument("--num_iter_list", type=int, nargs="+", default=[8, 4, 2, 1], help="iterations of MAR levels")
    top.add_argument("--polyphony", help="how many notes at a time are asked for (default: left open)")
    top.add_argument("--cfg", type=float, default=1.0, help="guidance scale")
    top.add_argument("--filter_threshold", type=float, default=0.01, help="rule out choices less likely than this")
    top.add_argument("--seed", type=int, default=0, help="seed of the samples")
    top.add_argument("--midi", help="folder for the harmonisations")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
