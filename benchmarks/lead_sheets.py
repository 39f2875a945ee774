"""Lead sheets of POP909 songs: what FractalGen composes under them, beside what others wrote and composed.

A folder holds songs, each with segments in `lead_sheet/` (a melody and held block chords in one track, chords as
markers), `truth/` (what the arranger wrote) and any other systems, `d3pia/` among them (J. Choi et al., "D3PIA: A
Discrete Denoising Diffusion Model for Piano Accompaniment Generation From Lead Sheet", ICASSP 2026).  FractalGen
accompanies the same lead sheets as `fractalgen generate --mode accompany --lead_sheet` does.  With a packed corpus in
place of the folder, lead sheets are made of songs of one split: validation songs, to choose settings by.

All files are measured whole, melody and accompaniment, by `smg-metrics`:

- chord accuracy: share of beats whose chord (root, and major or minor) is the one that is heard in the lead sheet; so
  the figures published for D3PIA, means over ten segments, are defined.  Also beside the truth instead
- chord similarity: cosine of the embeddings of two bars and of the same bars of the lead sheet
- out of key: share of sixteenths with a note outside of the key that is heard in the file
- onset distance: share of sixteenths at which either the file or the truth has an onset

Against the chords that are given: chords heard by `smg-metrics`, and by the estimator of this package in the whole file
and in what is left of it without the melody; shares of beats with the same root, root and third, quality, and bass.
These figures are means over songs, of the means over their segments, with standard errors over songs.  Distance: the
mean over the music statistics of the Wasserstein distance from the truths, in their standard deviations.

    python -m benchmarks.lead_sheets --data FOLDER [--model pop909-ar] [--midi FOLDER] [--json FILE]
    python -m benchmarks.lead_sheets --corpus pop909.safetensors --songs 11
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from benchmarks import measure, natural, parser
from benchmarks.compare_tables import by_name
from benchmarks.infilling import distance
from benchmarks.plan_agreement import agreement
from benchmarks.sheets import (
    BARS,
    SHEET,
    TRUTH,
    Sheet,
    codes_at,
    examples_in,
    given_chords,
    sheets_in,
    write_sheets,
)
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.compose.assignment import Assignment, assignment, resolve_lead_sheet
from fractalgen.compose.composition import wanted_plans, with_defaults
from fractalgen.compose.wishes import choose_labels
from fractalgen.config import DEFAULT_MODEL, GenerateConfig, sampling_settings
from fractalgen.data.corpus import SPLITS, Corpus
from fractalgen.data.crops import evenly
from fractalgen.errors import UserError
from fractalgen.music.chord_estimate import estimate_chords
from fractalgen.music.chords import NO_CHORD, parse_harte
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.plan import Plan
from fractalgen.music.tokens import ONSET, PITCHES, UNKNOWN, tokens_from_notes
from fractalgen.music.voices import melody_beside_chords
from fractalgen.rolls import plans_of
from fractalgen.sampling import sample_rolls

OURS = "FractalGen"
NOT_SHOWN = ("smg: quality", "smg: bass", "whole: root and third", "whole: bass")
FLAGS = ("cfg", "filter_threshold", "density", "polyphony", "seed", "batch_size")  # as of ``fractalgen generate``
Figures = dict[str, float]


# ------------------------------------------------------------------------------------------------------- composing


class Job(NamedTuple):
    """An accompaniment to compose: what is given, also as cells, its labels, its plan, and its file."""

    work: Assignment
    known: npt.NDArray[np.int16]
    labels: npt.NDArray[np.int64]
    plan: Plan
    path: Path


def job_of(model: FractalGen, cfg: GenerateConfig, sheet: Path, path: Path) -> Job:
    """What ``fractalgen generate`` composes with these flags."""
    cfg = resolve_lead_sheet(replace(cfg, lead_sheet=str(sheet)))
    work = replace(assignment(cfg, model.config, 0), changes=given_chords(sheet, model.config.steps_per_quarter))
    labels = choose_labels(cfg, model.config, work, 0)
    plans, known = wanted_plans(cfg, model, work, labels), work.known()
    assert plans is not None
    assert known is not None
    return Job(work, known, labels[0], plans[0], path)


def compose(model: FractalGen, cfg: GenerateConfig, jobs: Sequence[Job]) -> None:
    """Compose all accompaniments and write them; those of equal columns are composed together."""
    sampling = replace(sampling_settings(cfg), num_iter_list=model.iterations(cfg.num_iter_list))
    generator = torch.Generator(model.device).manual_seed(cfg.seed or 0)
    alike: dict[bytes, list[Job]] = {}
    for job in jobs:
        alike.setdefault(job.work.layout.lengths.tobytes(), []).append(job)
    parts = [same[i : i + cfg.batch_size] for same in alike.values() for i in range(0, len(same), cfg.batch_size)]
    with tqdm(parts, desc="composing", unit="batch", dynamic_ncols=True) as bar:
        for part in bar:
            layout = part[0].work.layout
            labels = list(torch.from_numpy(np.stack([job.labels for job in part])).unbind(1))
            plans, _ = plans_of(model, sampling, layout, [job.plan for job in part], False, labels, generator)
            known = np.stack([layout.lay(job.known.astype(np.int64), UNKNOWN) for job in part])
            tokens, _ = sample_rolls(
                model,
                sampling,
                len(part),
                cond_list=labels,
                width=layout.width,
                known=torch.from_numpy(known),
                plans=plans,
                absent=torch.from_numpy(~layout.exists),
                generator=generator,
            )
            for job, roll in zip(part, tokens.cpu().numpy().astype(np.uint8), strict=True):
                piece = PianoRoll(layout.strip(roll), model.config.steps_per_quarter, model.config.velocity_bins)
                job.path.parent.mkdir(parents=True, exist_ok=True)
                job.work.write(job.work.finish(piece), job.path, "", ())


# ------------------------------------------------------------------------------------------------------- measuring


def heard_by_smg(path: Path) -> npt.NDArray[np.int64]:
    """Codes of the beats of a file, by ``smg-metrics``."""
    from smg_metrics.chord_accuracy import midi_to_chords_dp

    return np.array([parse_harte(label) for label in midi_to_chords_dp(path)], np.int64)


def by_smg(path: Path, sheet: Sheet) -> Figures:
    """Figures of a file by ``smg-metrics``, see above."""
    from smg_metrics import compute_ca, compute_cs, mean_ioi, onset_xor_distance, out_of_key_fraction

    return {
        "chord accuracy": compute_ca(path, sheet.path),
        "beside the truth": compute_ca(path, sheet.truth),
        "chord similarity": compute_cs(path, sheet.path, device="cpu"),
        "out of key": out_of_key_fraction(path),
        "onset distance": onset_xor_distance(path, sheet.truth),
        "seconds between onsets": mean_ioi(path),
        "notes a bar": float((PianoRoll.from_midi(path).tokens >= ONSET).sum()) / BARS,
    }


def tokens_of(path: Path, width: int, beat: int) -> npt.NDArray[np.uint8]:
    """Tokens (128, width) of a file."""
    tokens = np.zeros((PITCHES, width), np.uint8)
    read = PianoRoll.from_midi(path, beat).tokens[:, :width]
    tokens[:, : read.shape[1]] = read
    return tokens


def obeys(path: Path, sheet: Sheet, beat: int) -> Figures:
    """How the chords that are heard in a file agree with those that are given, see above; ``beat``: its steps."""
    given = PianoRoll.from_midi(sheet.path, beat)
    beats = np.arange(0, given.width, beat)
    wanted = codes_at(given_chords(sheet.path, beat), beats)
    heard = heard_by_smg(path)[: len(wanted)]
    heard = np.r_[heard, np.full(len(wanted) - len(heard), NO_CHORD)]
    figures = {f"smg: {name}": value for name, value in agreement(wanted, heard).items()}
    whole = tokens_of(path, given.width, beat)
    notes = PianoRoll(whole).notes()
    sung = {(note["pitch"], note["start"]) for note in given.notes()[melody_beside_chords(given.notes())]}
    kept = np.array([(note["pitch"], note["start"]) not in sung for note in notes], np.bool_)
    for name, music in (("whole", whole), ("alone", tokens_from_notes(notes[kept], 0, given.width))):
        found = agreement(wanted, estimate_chords(music, beats, beats[::4]))
        figures |= {f"{name}: {key}": value for key, value in found.items()}
    return figures


def summary(rows: Sequence[tuple[str, Figures]]) -> dict[str, dict[str, float]]:
    """Mean and standard error of each figure over groups, of its mean in each; (group, figures)."""
    found = {}
    for name in rows[0][1]:
        values: dict[str, list[float]] = {}
        for group, figures in rows:
            values.setdefault(group, []).append(figures[name])
        means = [float(np.mean(value)) for value in values.values()]
        error = float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan")
        found[name] = {"mean": float(np.mean(means)), "stderr": error}
    return found


def compare(sheets: Sequence[Sheet], figures_of: Callable[[Path, Sheet], Figures], what: str) -> dict[str, Any]:
    """The summary of each system, the lead sheet itself last."""
    names = [*dict.fromkeys(name for sheet in sheets for name in sheet.systems), SHEET]
    files = [(name, sheet, {**sheet.systems, SHEET: sheet.path}.get(name)) for name in names for sheet in sheets]
    rows: dict[str, list[tuple[str, Figures]]] = {name: [] for name in names}
    for name, sheet, path in tqdm(files, desc=what, unit="file", dynamic_ncols=True):
        if path is not None:
            rows[name].append((sheet.group, figures_of(path, sheet)))
    return {name: summary(found) for name, found in rows.items()}


def distances(sheets: Sequence[Sheet], beat: int) -> dict[str, float]:
    """How far each system is from the truth by the music statistics, see :func:`.infilling.distance`."""

    def rolls(name: str) -> npt.NDArray[np.uint8]:
        return np.stack([tokens_of(sheet.systems[name], 4 * BARS * beat, beat) for sheet in sheets])

    names = [name for name in sheets[0].systems if name != TRUTH and all(name in sheet.systems for sheet in sheets)]
    return {name: distance(rolls(TRUTH), rolls(name), 4 * beat) for name in names}


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row of a table."""
    return {name: f"{of['mean']:.3f} ± {of['stderr']:.3f}" for name, of in row.items() if name not in NOT_SHOWN}


# ----------------------------------------------------------------------------------------------------- the command


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compose, measure, and print tables.

    Raises:
        UserError: files or settings that cannot work.
    """
    if (args.data is None) == (args.corpus is None):
        raise UserError("give either --data, a folder of lead sheets, or --corpus, a packed corpus")
    if importlib.util.find_spec("smg_metrics") is None:
        raise UserError("smg-metrics, which measures, is missing (pip install 'fractalgen-piano[dev]')")
    with tempfile.TemporaryDirectory() as made:
        if args.corpus:
            corpus = Corpus.open(args.corpus)
            folder = Path(made, "sheets")
            write_sheets(corpus, evenly(corpus.indices(args.split), args.songs), folder)
            sheets = sheets_in(folder)
        else:
            folder = Path(args.data)
            sheets = sheets_in(folder, args.songs)
        examples = examples_in(folder)
        model = load_pretrained(args.model)
        if not model.config.plan_width:
            raise UserError(f"--model {args.model}: it was trained without plans")
        where = Path(args.midi or made)
        temperature = tuple(args.temperature) if len(args.temperature) > 1 else args.temperature[0]
        flags = {name: getattr(args, name) for name in FLAGS}
        wishes = GenerateConfig(mode="accompany", lead_sheet=str(folder), temperature=temperature, **flags)
        cfg = with_defaults(wishes, model.config)
        jobs = []
        for group in (sheets, examples):
            for sheet in group:
                sheet.systems[OURS] = where / sheet.group / OURS / sheet.path.name
                jobs.append(job_of(model, cfg, sheet.path, sheet.systems[OURS]))
        compose(model, cfg, jobs)
        beat = model.config.steps_per_quarter
        result: dict[str, Any] = {"model": model.checkpoint_id, "segments": len(sheets), "settings": vars(args)}
        result["songs"] = len({sheet.group for sheet in sheets})
        print(f"{model.checkpoint_id}: {len(sheets)} segments of {result['songs']} songs")
        for name, group, figures_of in (
            ("systems", sheets, by_smg),
            ("given chords", sheets, partial(obeys, beat=beat)),
            ("listening examples", examples, by_smg),
        ):
            if group:
                result[name] = compare(group, figures_of, name)
                print(f"\n{name}\n\n{by_name({system: shown(row) for system, row in result[name].items()})}")
        result["distance"] = distances(sheets, beat)
        print("\ndistance from the truth:", *(f"{name} {value:.2f}" for name, value in result["distance"].items()))
        return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.lead_sheets", "accompaniments of lead sheets, beside those of others")
    top.add_argument("--data", help="folder of lead sheets: */lead_sheet/*.mid, */truth/*.mid, */d3pia/*.mid ...")
    top.add_argument("--corpus", help="packed corpus to make lead sheets of instead")
    top.add_argument("--split", default="valid", choices=SPLITS, help="its songs")
    top.add_argument("--songs", type=natural, default=0, help="at most so many songs, evenly spread (0: all)")
    top.add_argument("--model", default=DEFAULT_MODEL, help="shipped, or a checkpoint")
    top.add_argument("--cfg", type=float, help="guidance scale (default: that of fractalgen generate)")
    threshold = GenerateConfig.filter_threshold
    top.add_argument("--filter_threshold", type=float, default=threshold, help="rule out choices less likely than this")
    top.add_argument("--temperature", type=float, nargs="+", default=[1.0], help="one number, or one for each level")
    top.add_argument("--density", help="label, percentile or number (default: as for --cfg)")
    top.add_argument("--polyphony", help="label, percentile or number (default: as for --cfg)")
    top.add_argument("--seed", type=int, default=0, help="seed of the samples")
    top.add_argument("--batch_size", type=int, default=16, help="segments composed together")
    top.add_argument("--midi", help="folder for the accompaniments")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
