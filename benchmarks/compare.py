"""FractalGen and the note event transformer side by side: likelihood, generated music, copying, cost.

Everything is measured on the same excerpts of one split: those of FractalGen, which are whole bars where its columns
are bars.  Both models are given how many steps an excerpt has.  ``python -m benchmarks.compare --help``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import measure, natural, parser, train_note_events
from benchmarks.compare_tables import BASELINE, OURS, tables
from benchmarks.note_events import NoteEventConfig, NoteEventTransformer, sample
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.checkpoint import find_model, read_checkpoint
from fractalgen.config import DEFAULT_MODEL, ModelConfig
from fractalgen.data.attributes import random_key_labels
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import ValidCrops, every_other_song
from fractalgen.devices import resolve_device
from fractalgen.errors import UserError
from fractalgen.evaluation import likelihood
from fractalgen.evaluation.copying import BarIndex
from fractalgen.features.notes import crop_tokens, faults
from fractalgen.features.statistics import STATISTICS, Comparison, compare, music_statistics, three_rows
from fractalgen.files import replacing
from fractalgen.progress import composing_bar
from fractalgen.rolls import compose_rolls

BATCH = 8  # rolls computed together, of both models

Rolls = npt.NDArray[np.uint8]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, print it and write the tables.

    Raises:
        UserError: settings or files that cannot work, or models that do not fit the corpus or each other.
    """
    check(args)
    corpus = Corpus.open(args.data)
    device = resolve_device(args.device)
    ours = load_pretrained(args.checkpoint, device)
    baseline, content = train_note_events.load(args.baseline, flag="baseline")
    baseline.to(device)
    likelihood.check_fits(corpus, args.data, ours)
    check_models(args, ours.config, baseline.config)
    length = ours.config.crop_length
    bars: dict[str, Any] = {"patch": ours.config.column, "bar_columns": ours.config.bar_columns}
    crops = ValidCrops(corpus, args.split, length, **bars)
    second = every_other_song(crops.crops)
    if args.num_samples and not second.any():
        raise UserError(f"--num_samples {args.num_samples}: {args.data} has one song only in split {args.split}")

    result: dict[str, Any] = {
        "corpus": corpus.path.stem,
        "split": args.split,
        "crop_length": length,
        "num_samples": args.num_samples,
        "seed": args.seed,
        "device": device,
        "threads": torch.get_num_threads(),
        "models": {
            OURS: facts(ours, ours.checkpoint_id, read_checkpoint(find_model(args.checkpoint))[0]),
            BASELINE: facts(baseline, Path(args.baseline).stem, content),
        },
    }
    scored = ValidCrops(corpus, args.split, length, limit=args.limit, **bars)
    result |= {"crops": len(scored), "songs": len({song for song, _ in scored.crops})}
    add_likelihoods(result, ours, baseline, scored)
    if args.num_samples:
        add_samples(result, corpus, crop_tokens(crops), second, rolls_of_both(result, ours, baseline))
    text = tables(result)
    print(text)
    if args.markdown:
        with replacing(args.markdown) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return result


def check(args: argparse.Namespace) -> None:
    """Refuse settings that cannot work with any files."""
    for name in ("json", "markdown"):
        path = getattr(args, name)
        if path and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
            raise UserError(f"--{name} {path}: not a file in an existing folder")


def check_models(args: argparse.Namespace, one: ModelConfig, two: NoteEventConfig) -> None:
    """Refuse a baseline whose excerpts are not FractalGen's."""
    for what, here, there in (
        ("velocity_bins", two.velocity_bins, one.velocity_bins),
        ("steps per bar", two.steps_per_bar, 4 * one.steps_per_quarter),
        ("crop length", two.steps, one.crop_length),
    ):
        if here != there:
            raise UserError(f"--baseline {args.baseline}: {what} {here}, --checkpoint {args.checkpoint} has {there}")


def facts(model: torch.nn.Module, name: str, header: Mapping[str, Any]) -> dict[str, Any]:
    """Size of a model, and its training as far as its checkpoint tells (None where it does not)."""
    train = header.get("train") or {}
    steps, batch = header.get("step"), train.get("batch_size")
    crops = None if steps is None or batch is None else steps * batch * train.get("accumulate_grad_batches", 1)
    return {
        "checkpoint": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "training_crops": crops,
        "training_seconds": header.get("seconds"),
    }


def add_likelihoods(
    result: dict[str, Any], ours: FractalGen, baseline: NoteEventTransformer, crops: ValidCrops
) -> None:
    """Add the likelihood of both models, and their difference on the same songs: negative where FractalGen's is better.

    The standard error of the difference is that over songs, each paired with itself.
    """
    one = likelihood.score(ours, crops.corpus, likelihood.crop_windows(crops), batch_size=BATCH)
    two = train_note_events.score(baseline, crops, batch_size=BATCH)
    result["models"][OURS]["likelihood"] = one.summary()
    result["models"][BASELINE]["likelihood"] = two.summary()
    nats = one.nats - two.nats
    by_song = np.bincount(np.unique(one.songs, return_inverse=True)[1], nats)
    result["difference"] = {"exact": one.exact, **one.per_note(nats), "songs_better": int((by_song < 0).sum())}


def rolls_of_both(result: dict[str, Any], ours: FractalGen, baseline: NoteEventTransformer) -> dict[str, Rolls]:
    """Rolls (n, 128, T) drawn from both models at temperature 1; adds the seconds that each roll took.

    A model that knows keys gets a random one, as ``fractalgen generate`` does.
    """
    count, seed = result["num_samples"], result["seed"]
    began = time.monotonic()
    with composing_bar() as progress:
        labels = random_key_labels(ours.config.attributes, count, seed)
        composed, _ = compose_rolls(ours, count, labels=labels, seed=seed, batch_size=BATCH, progress=progress)
    middle = time.monotonic()
    rolls = {OURS: np.stack([roll.tokens for roll in composed]), BASELINE: sample(baseline, count, seed)}
    for name, seconds in ((OURS, middle - began), (BASELINE, time.monotonic() - middle)):
        result["models"][name]["seconds_per_roll"] = seconds / count
    return rolls


def add_samples(
    result: dict[str, Any], corpus: Corpus, real: Rolls, second: npt.NDArray[np.bool_], rolls: Mapping[str, Rolls]
) -> None:
    """Add statistics, faults and copying of ``rolls``; ``second`` marks the half of ``real`` that makes the floor."""
    steps_per_bar = 4 * corpus.steps_per_quarter
    generator = np.random.default_rng(result["seed"])
    rows = three_rows(real[~second], real[second], rolls[OURS], generator, steps_per_bar)
    known = music_statistics(real[~second], steps_per_bar)
    result["statistics"] = {
        "real": rows["real"],
        OURS: rows["generated"],
        BASELINE: compare(known, music_statistics(rolls[BASELINE], steps_per_bar)),
        "shuffled": rows["shuffled"],
    }
    result["nearer"] = nearer(result["statistics"])
    result["copying"] = {}
    if corpus.indices("train"):
        index = BarIndex.from_corpus(corpus, steps_per_bar=steps_per_bar)
        result["copying"] = {name: index.share(tokens) for name, tokens in [("real", real), *rolls.items()]}
    for name, tokens in rolls.items():
        result["models"][name]["faults"] = faults(tokens, real)


def nearer(rows: Mapping[str, Comparison]) -> dict[str, int]:
    """In how many statistics each model is nearer (Wasserstein) to the floor than the other.

    Distances below the floor, that of real songs from other real songs, are differences by chance: they count as it.
    """
    counts = {OURS: 0, BASELINE: 0, "equal": 0}
    for name in STATISTICS:
        floor, one, two = (rows[row][name]["wasserstein"] for row in ("real", OURS, BASELINE))
        if floor is not None and one is not None and two is not None:
            one, two = max(one, floor), max(two, floor)
            counts[OURS if one < two else BASELINE if two < one else "equal"] += 1
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.compare", "FractalGen and the note event transformer on the same music")
    top.add_argument("--checkpoint", default=DEFAULT_MODEL, help="FractalGen: .ckpt, .safetensors or a shipped name")
    top.add_argument("--baseline", required=True, help="checkpoint of benchmarks.note_events (.pt)")
    top.add_argument("--data", required=True, help="packed corpus, or an embedded one by name")
    top.add_argument("--split", default="test", choices=("test", "valid"), help="songs that neither was trained on")
    top.add_argument("--num_samples", type=natural, default=100, help="rolls to draw from each (0: likelihood only)")
    top.add_argument("--limit", type=natural, default=0, help="score so many excerpts, evenly spread (0: all)")
    top.add_argument("--seed", type=natural, default=0, help="seed of the samples and of the shuffled rolls")
    top.add_argument("--device", default="cpu", help="cpu, cuda, mps or auto")
    top.add_argument("--markdown", help="file for the tables")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
