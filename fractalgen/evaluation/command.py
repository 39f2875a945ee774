"""``fractalgen evaluate``: score a corpus, compare generated with real music, write JSON and a page to look at."""

from __future__ import annotations

import itertools
import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
from tqdm import tqdm

from fractalgen.bulk import ALONE, Part, load_model, loaded_model, parts
from fractalgen.config import EvaluateConfig, SamplingConfig, sampling_settings
from fractalgen.config.values import as_typed
from fractalgen.data.corpus import Corpus, Split
from fractalgen.errors import UserError
from fractalgen.evaluation.copying import BarIndex
from fractalgen.evaluation.two_sample import (
    FEWEST,
    compare_with_songs,
    song_excerpts,
    spread_choice,
    too_few,
    two_sample_text,
)
from fractalgen.features.critic import Critic
from fractalgen.features.notes import crop_tokens, faults
from fractalgen.features.statistics import comparison_table, histograms, music_statistics, three_rows
from fractalgen.features.vector import feature_rows
from fractalgen.files import write_json
from fractalgen.parallel import ordered
from fractalgen.progress import composing_bar

if TYPE_CHECKING:
    import numpy.typing as npt

    from fractalgen.api import FractalGen
    from fractalgen.data.crops import ValidCrops
    from fractalgen.evaluation.likelihood import Scores
    from fractalgen.music.pianoroll import PianoRoll
    from fractalgen.trace import Trace

    Rolls = npt.NDArray[np.uint8]

EXAMPLES = 4  # samples on the page
MOST_EXCERPTS = 2000  # of songs, from which a critic learns
# flags that say how samples are drawn, and what is made of them
SAMPLE_FLAGS = {item.name for item in fields(SamplingConfig)} | {"best_of", "critic", "scheduler"}


def evaluate(cfg: EvaluateConfig) -> int:
    """Score the songs that ``cfg`` names and, with ``num_samples``, compare generated rolls with them.

    Raises:
        UserError: settings or files that cannot work; nothing has been written then.
    """
    check_flags(cfg)
    corpus = Corpus.open(cfg.data)
    splits = chosen_splits(cfg, corpus)
    # Imported here and not above: torch takes seconds, and mistakes should be answered at once.
    from fractalgen.data.crops import ValidCrops
    from fractalgen.devices import choose_precision

    model = load_model(cfg.checkpoint, cfg.model, cfg.device)
    check_against_model(cfg, corpus, model)
    config = model.config
    parts = [
        ValidCrops(corpus, split, config.crop_length, patch=config.column, bar_columns=config.bar_columns)
        for split in splits
    ]
    songs = sorted({song for crops in parts for song, _ in crops.crops})
    if cfg.num_samples and len(songs) < 2:
        raise UserError(f"--num_samples {cfg.num_samples}: {cfg.data} has one song here, none to compare it with")
    precision = choose_precision(cfg.precision, model.device)
    print(f"{model.checkpoint_id} on {model.device} in {'bfloat16' if precision == 'bf16' else 'float32'}", flush=True)
    began = time.monotonic()
    scores = likelihood(cfg, corpus, model, parts)
    split = splits[0] if len(splits) == 1 else "all"
    result = figures(cfg, corpus, model, scores, split, precision, time.monotonic() - began)
    if result["bits_per_note"] is None:
        raise UserError(f"--data {cfg.data}: no note begins in the songs of split {result['split']}")
    print(likelihood_text(result))
    if config.plan_width:
        from fractalgen.evaluation.likelihood import plan_summary

        result["given_plan"] = plan_summary(likelihood(cfg, corpus, model, parts, given_plan=True))
        print(plan_text(result["given_plan"]))
    # samples end if they are as long as songs; else they go on after their last bar, as most excerpts of songs do
    ends = config.plan_width > 0 and float(np.median(corpus.lengths[songs])) <= config.crop_length
    drawn = samples(cfg, model, ends) if cfg.num_samples else []
    if drawn:
        tokens = np.concatenate([part.tokens for part in drawn])
        compare(cfg, corpus, result, parts, tokens)
        shape = {"ends": ends, "bar_columns": config.bar_columns}
        result["two_sample"] = compare_with_songs(corpus, songs, tokens, **shape, seed=cfg.seed)
        print(two_sample_text(result["two_sample"]))
        if cfg.critic:
            learn_critic(cfg, corpus, model, tokens).write(Path(cfg.critic))
    if cfg.json:
        write_json(cfg.json, {key: value for key, value in result.items() if key != "histograms"})
    if cfg.report:
        from fractalgen.evaluation.report import write_report

        shown = (drawn[0].rolls, drawn[0].traces) if drawn else ([], [])
        write_report(Path(cfg.report), result, *shown, result.get("histograms", {}))
    return 0


def figures(
    cfg: EvaluateConfig, corpus: Corpus, model: FractalGen, scores: Scores, split: str, precision: str, seconds: float
) -> dict[str, Any]:
    """What ``--json`` tells of the likelihood of a split, scored in some ``precision`` within so many seconds."""
    return {
        "model": model.checkpoint_id,
        "corpus": corpus.path.stem,
        "split": split,
        "windows": f"whole songs, stride {cfg.stride}" if cfg.stride else "separate crops",
        "crop_length": model.config.crop_length,
        "precision": precision,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flat_songs": sum(corpus.flat(song) for song in np.unique(scores.songs).tolist()),
        **scores.summary(model.config.pitches),
        "seconds": round(seconds, 1),
        "command": shlex.join(["fractalgen", "evaluate", *itertools.chain(*given(cfg).values())]),
    }


def given(cfg: EvaluateConfig) -> dict[str, list[str]]:
    """The flags that do not have their defaults, by name, each with its values as they are typed, numbers exact."""
    words: dict[str, list[str]] = {}
    for item in fields(cfg):
        value = getattr(cfg, item.name)
        values = value if isinstance(value, tuple) else (value,)
        if value != item.default and values != (item.default,):
            words[item.name] = [
                f"--{item.name}",
                *(str(one) if isinstance(one, float) else as_typed(one) for one in values),
            ]
    return words


def check_flags(cfg: EvaluateConfig) -> None:
    """Refuse settings that cannot work with any model (UserError naming flag and value)."""
    if cfg.limit and cfg.stride:
        raise UserError(f"--limit {cfg.limit} chooses crops, --stride {cfg.stride} whole songs: give only one of them")
    scoring_flags = {"num_iter_list", "mar_order"} if cfg.scheduled else set()
    unused = [" ".join(words) for name, words in given(cfg).items() if name in SAMPLE_FLAGS - scoring_flags]
    if unused and not cfg.num_samples:
        raise UserError(f"{unused[0]}: says how samples are drawn, and --num_samples 0 draws none")
    if cfg.critic and cfg.num_samples < FEWEST:
        raise UserError(f"--critic {cfg.critic}: needs at least --num_samples {FEWEST}, not {cfg.num_samples}")
    if cfg.critic and cfg.best_of > 1:
        raise UserError(f"--critic {cfg.critic}: learns from all that is drawn, and --best_of {cfg.best_of} chooses")
    for name in ("json", "report", "critic"):
        path = getattr(cfg, name)
        if path and not Path(path).absolute().parent.is_dir():
            raise UserError(f"--{name} {path}: there is no folder {Path(path).parent}")
        if path and Path(path).is_dir():
            raise UserError(f"--{name} {path}: is a folder")
        if path and not os.access(Path(path).absolute().parent, os.W_OK):
            raise UserError(f"--{name} {path}: the folder is not writable")


def chosen_splits(cfg: EvaluateConfig, corpus: Corpus) -> list[Split]:
    """The splits to evaluate; a corpus without test songs is evaluated as a whole unless a split is named."""
    everything = [split for split in get_args(Split) if corpus.indices(split)]
    if cfg.split == "all" or (cfg.split is None and "test" not in everything):
        return everything
    split = cfg.split or "test"
    if split not in everything:
        raise UserError(f"--split {split}: {cfg.data} has no such songs, only {', '.join(everything)}")
    return [split]


def check_against_model(cfg: EvaluateConfig, corpus: Corpus, model: FractalGen) -> None:
    """Refuse what this model cannot score (UserError naming both values)."""
    from fractalgen.evaluation.likelihood import check_fits
    from fractalgen.rolls import check_critic

    check_fits(corpus, cfg.data, model)
    model.fit(cfg)
    check_critic(model, model.critic, cfg.best_of)
    if cfg.critic and (many := len(corpus.indices("train"))) < FEWEST:
        raise UserError(f"--critic {cfg.critic}: {cfg.data} has {many} songs for training, it needs {FEWEST}")
    patch, length = model.config.column, model.config.crop_length
    if cfg.stride % patch or cfg.stride > length:
        raise UserError(f"--stride {cfg.stride}: must be a multiple of the patch size {patch}, {length} at most")


def likelihood(
    cfg: EvaluateConfig, corpus: Corpus, model: FractalGen, parts: list[ValidCrops], given_plan: bool = False
) -> Scores:
    """The negative log-likelihoods of crops, or of whole songs."""
    from fractalgen.data.crops import evenly
    from fractalgen.evaluation.likelihood import crop_windows, score, sliding_windows

    if cfg.stride:
        songs = sorted({song for crops in parts for song, _ in crops.crops})
        windows = sliding_windows(parts[0].excerpts, songs, cfg.stride)
    else:
        windows = evenly([window for crops in parts for window in crop_windows(crops)], cfg.limit)
    return score(
        model,
        corpus,
        windows,
        batch_size=cfg.batch_size,
        num_iter_list=cfg.num_iter_list if cfg.scheduled else None,
        mar_order=cfg.mar_order,
        seed=cfg.seed,
        precision=cfg.precision,
        given_plan=given_plan,
    )


def plan_text(found: dict[str, Any]) -> str:
    """The figures of plans for the terminal."""
    returns, chords = (found[f"plan/{name}"] for name in ("returns", "chords"))
    error = "" if found["stderr_with_plan"] is None else f" +- {found['stderr_with_plan']:.3f}"
    return (
        f"given its plan {found['bits_per_note']:.3f} bits per note; the plan {returns + chords:.3f} (returns"
        f" {returns:.3f}, chords {chords:.3f}); together {found['with_plan']:.3f}{error}"
    )


def likelihood_text(result: dict[str, Any]) -> str:
    """The figures for the terminal."""
    sign = "=" if result["exact"] else "<="
    error = "" if result["stderr"] is None else f" +- {result['stderr']:.3f}"
    lines = [
        f"{result['model']} on {result['corpus']}, {result['split']}: {result['crops']} windows of {result['songs']}"
        f" songs ({result['windows']}), {result['notes']} notes",
        f"NLL {sign} {result['bits_per_note']:.3f}{error} bits per note = {result['bits_per_cell']:.5f} bits per cell"
        f" = {result['nats_per_frame']:.3f} nats per frame = {result['nll_nats_per_crop']:.1f} nats per crop",
    ]
    for level, entry in result["levels"].items():
        parts = ", ".join(
            f"{name} {value:.3f}" for name, value in entry.items() if name not in ("bits_per_note", "nats_per_crop")
        )
        lines.append(f"  {level}: {entry['bits_per_note']:.3f} bits per note ({parts})")
    if result.get("flat_songs"):
        lines.append(
            f"  of {result['flat_songs']} songs the velocities mean nothing: their notes count, not their velocities"
        )
    lines.append("  by kind: " + ", ".join(f"{kind} {value:.3f}" for kind, value in result["kinds"].items()))
    return "\n".join(lines)


class Drawn(NamedTuple):
    """A part of the samples, uint8 (n, 128, T); of the first part also some rolls, and how they were composed."""

    tokens: Rolls
    rolls: list[PianoRoll]
    traces: list[Trace]


def draw(
    model: FractalGen,
    cfg: EvaluateConfig,
    part: Part,
    ends: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Drawn:
    """Draw a part of the samples, as wide as the crops, in random keys; ``ends``: whether they are told of an end."""
    from fractalgen.data.attributes import random_key_labels
    from fractalgen.music.planning import piece_plan
    from fractalgen.rolls import compose_rolls, layout_of

    config = model.config
    rolls, traces = compose_rolls(
        model,
        part.size,
        plan=piece_plan(layout_of(config), config.steps_per_quarter, ends=ends) if config.plan_width else None,
        labels=random_key_labels(config.attributes, part.size, part.seed),
        sampling=sampling_settings(cfg),
        seed=part.seed,
        batch_size=cfg.batch_size,
        best_of=cfg.best_of,
        critic=model.critic,
        return_trace=part.first == 0,
        progress=progress,
    )
    examples = EXAMPLES if part.first == 0 else 0
    return Drawn(np.stack([roll.tokens for roll in rolls]), rolls[:examples], traces[:examples])


def draw_remotely(order: tuple[EvaluateConfig, Part, bool]) -> Drawn:
    """Draw a part of the samples on a worker."""
    cfg, part, ends = order
    with ALONE:
        return draw(loaded_model(cfg.checkpoint, cfg.model, cfg.device), cfg, part, ends)


def samples(cfg: EvaluateConfig, model: FractalGen, ends: bool) -> list[Drawn]:
    """All samples, part by part; ``ends``: see :func:`draw`.

    Raises:
        UserError: the cluster that is to draw them does not.
    """
    orders = [(cfg, part, ends) for part in parts(cfg.num_samples, cfg.seed)]
    if cfg.scheduler is None and len(orders) == 1:
        with composing_bar() as progress:
            return [draw(model, *orders[0], progress)]

    def killed(order: tuple[EvaluateConfig, Part, bool]) -> Drawn:
        raise UserError(f"--scheduler {cfg.scheduler}: workers died that drew samples {order[1].first} and the next")

    found = []
    results: Iterator[Drawn] = (draw(model, *order) for order in orders)
    if cfg.scheduler is not None:
        results = ordered(draw_remotely, orders, killed, scheduler=cfg.scheduler, batch=1)
    with tqdm(total=cfg.num_samples, desc="composing", unit="piece", dynamic_ncols=True) as bar:
        for part in results:
            found.append(part)
            bar.update(len(part.tokens))
    return found


def learn_critic(cfg: EvaluateConfig, corpus: Corpus, model: FractalGen, samples: Rolls) -> Critic:
    """A critic that tells samples (n, 128, T) of the model from excerpts of the training songs.

    Raises:
        UserError: too few of them.
    """
    bar = 4 * corpus.steps_per_quarter
    songs, groups = song_excerpts(corpus, corpus.indices("train"), samples.shape[2], "any", bar)
    if reason := too_few(groups, len(samples)):
        raise UserError(f"--critic {cfg.critic}: {reason}")
    chosen = spread_choice(groups, MOST_EXCERPTS, np.random.default_rng(cfg.seed))
    sampling = [" ".join(words) for name, words in given(cfg).items() if name in SAMPLE_FLAGS - {"critic"}]
    about = {
        "model": model.checkpoint_id,
        "samples": f"{len(samples)}, seed {cfg.seed}, {' '.join(sampling)}",
        "songs": f"{corpus.path.stem}, {len(chosen)} excerpts of {len(set(groups[chosen].tolist()))} training songs",
    }
    return Critic.fit(feature_rows(songs[chosen], bar), feature_rows(samples, bar), about)


def compare(
    cfg: EvaluateConfig, corpus: Corpus, result: dict[str, Any], parts: list[ValidCrops], tokens: Rolls
) -> None:
    """Add to ``result`` how generated rolls (n, 128, T) compare with real ones, and print it."""
    from fractalgen.data.crops import every_other_song

    bar = 4 * corpus.steps_per_quarter
    real = np.concatenate([crop_tokens(crops) for crops in parts])
    odd = every_other_song([crop for crops in parts for crop in crops.crops])
    result["sampling"] = {item.name: getattr(cfg, item.name) for item in fields(SamplingConfig)}
    result["sampling"] |= {name: getattr(cfg, name) for name in ("num_samples", "best_of", "seed", "batch_size")}
    result["statistics"] = three_rows(real[~odd], real[odd], tokens, np.random.default_rng(cfg.seed), bar)
    result["histograms"] = histograms(music_statistics(real, bar), music_statistics(tokens, bar))
    result["faults"] = faults(tokens, real)
    print(comparison_table(result["statistics"]))
    print("faults: " + ", ".join(f"{name} {value:g}" for name, value in result["faults"].items()))
    if result["split"] in ("test", "valid") and corpus.indices("train"):
        index = BarIndex.from_corpus(corpus, steps_per_bar=bar)
        result["copying"] = {"generated": index.share(tokens), "real": index.share(real)}
        for name, found in result["copying"].items():
            shares = "{exact:.2%} at the same pitches, {transposed:.2%} at any, at most {longest} in a row"
            told = f": {shares.format(**found)}" if found["bars"] else ""
            print(f"bars copied from training songs, of {found['bars']} {name}{told}")
