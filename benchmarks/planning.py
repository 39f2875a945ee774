"""Plans: how well they are found in music, and whether what is composed follows them.

Of a corpus: how often estimated chords agree with annotated ones (those of POP909), and how like bars are to those that
they come back to.  Of a model: chords that are obeyed, by guidance scale; bars that come back in a form; endings;
accompaniments of melodies; the texture of gaps.  Everything is measured on validation songs.

    python -m benchmarks.planning --data pop909.safetensors [--model pop909-ar] [--num_samples N] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks import measure, parser
from benchmarks.compare_tables import by_row
from benchmarks.plan_agreement import Tokens, agreement, columns_of, heard_chords, of_corpus
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.config import SamplingConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import Excerpts, evenly
from fractalgen.errors import UserError
from fractalgen.evaluation.likelihood import check_fits
from fractalgen.music.bars import BarLayout, main_meter, meter_label, parse_meter
from fractalgen.music.form import bar_features
from fractalgen.music.keys import key_between
from fractalgen.music.labels import KEYS
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.plan import Plan, bars_to_end, unit_chords
from fractalgen.music.planning import ending_on_tonic, piece_plan
from fractalgen.music.tasks import accompaniment, inpainting
from fractalgen.music.tokens import DEFAULT_METER, DEFAULT_TEMPO, ONSET, PITCHES, steps_of_bars, tokens_from_notes
from fractalgen.music.voices import MELODY
from fractalgen.rolls import compose_rolls, layout_of

BARS = 16
FORM = "A8 A8 B8 A8"
LEAST_SONGS = 3  # of a meter that is compared
LOW = 52  # pitches below E3 are low notes


class Bench:
    """A model and what it composes here; ``cfg``: scale of guidance; ``free``: a plan that only tells the bars left."""

    def __init__(self, model: FractalGen, args: argparse.Namespace) -> None:
        self.model, self.args, self.grid, self.bar = model, args, model.config.steps_per_quarter, model.config.column
        self.layout = self.bars(BARS)
        self.free = replace(Plan.free(len(self.layout), self.bar), left=bars_to_end(self.layout))
        self.column = {attribute.name: i for i, attribute in enumerate(model.config.attributes)}

    def bars(self, count: int) -> BarLayout:
        """So many bars of 4/4."""
        return BarLayout.of((DEFAULT_METER,), count * self.bar, self.grid, self.bar)

    def excerpt(self, corpus: Corpus, song: int, start: int) -> PianoRoll:
        """As many bars of a song as :attr:`layout` has."""
        tokens = corpus.tokens(song, start, start + self.layout.num_steps)
        return replace(corpus.roll(song), tokens=tokens, tempos=(DEFAULT_TEMPO,), time_signatures=())

    def key(self, corpus: Corpus, song: int, start: int) -> str | None:
        """The key of an excerpt of a song."""
        return key_between(corpus.keys(song), start, start + self.layout.num_steps)

    def plan(self, corpus: Corpus, song: int, start: int) -> Plan:
        """A plan that tells the chords of an excerpt of a song, and the bars that are left."""
        changes = tuple((step - start, code) for step, code in corpus.chords(song))
        return replace(self.free, chords=unit_chords(self.layout, changes))

    def labels(self, key: str | None) -> npt.NDArray[np.int64]:
        """Labels with a key alone."""
        labels = np.zeros(len(self.model.config.attributes), np.int64)
        if "key" in self.column and key is not None:
            labels[self.column["key"]] = KEYS.index(key) + 1
        return labels

    def compose(
        self,
        layout: BarLayout,
        plan: Plan | None,
        cfg: float,
        seed: int,
        key: str | None = None,
        known: npt.NDArray[Any] | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> Tokens:
        """One piece (128, T)."""
        sampling = SamplingConfig(cfg=cfg, filter_threshold=0.01, plan_temperature=0.8)
        rolls, _ = compose_rolls(
            self.model,
            1,
            sampling=sampling,
            layout=layout,
            plan=plan,
            complete=known is None,
            known=known,
            labels=self.labels(key) if labels is None else labels,
            seed=seed,
        )
        return rolls[0].tokens


def of_chords(bench: Bench, corpus: Corpus, excerpts: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Chords of real excerpts are given; which are heard in what is composed under them, and in the music itself."""
    layout = bench.layout
    real = [heard_chords(corpus.tokens(song, start, start + layout.num_steps), layout) for song, start in excerpts]
    jobs = [(bench.plan(corpus, *excerpt), bench.key(corpus, *excerpt)) for excerpt in excerpts]
    wanted = np.concatenate([plan.chords for plan, _ in jobs])
    rows: list[dict[str, Any]] = [{"guidance": "the song itself", **agreement(wanted, np.concatenate(real))}]
    for cfg in bench.args.cfg:
        found = [
            heard_chords(bench.compose(layout, plan, cfg, seed, key), layout)
            for seed, (plan, key) in enumerate(tqdm(jobs, desc=f"chords, guidance {cfg:g}", unit="piece"))
        ]
        rows.append({"guidance": f"{cfg:g}", **agreement(wanted, np.concatenate(found))})
    return rows


def of_form(bench: Bench) -> list[dict[str, Any]]:
    """Likeness of bars of later sections to the bars at the same place of the first, and to that place in B."""
    layout = bench.bars(32)
    plan = piece_plan(layout, bench.grid, form=FORM)
    rows = []
    for cfg in bench.args.cfg:
        like: dict[str, list[float]] = {"second A": [], "third A": [], "B": []}
        for seed in tqdm(range(bench.args.num_samples), desc=f"form, guidance {cfg:g}", unit="piece"):
            tokens = bench.compose(layout, plan, cfg, seed, KEYS[seed % 24])
            features = bar_features(columns_of(layout, tokens))
            for name, first in (("second A", 8), ("B", 16), ("third A", 24)):
                like[name].append(float((features[:8] * features[first : first + 8]).sum(1).mean()))
        rows.append({"guidance": f"{cfg:g}", **{name: float(np.mean(values)) for name, values in like.items()}})
    return rows


def of_endings(bench: Bench, corpus: Corpus) -> list[dict[str, Any]]:
    """How songs end, and pieces of 16 bars whose plan ends on the tonic, as those of ``fractalgen generate`` do."""
    layout = bench.layout
    songs, composed = [], []
    for song in corpus.indices("valid"):
        steps = corpus.num_steps(song)
        start = steps - layout.num_steps
        if start >= 0 and (key := bench.key(corpus, song, start)) is not None:
            songs.append(ending(corpus.tokens(song, start, steps), KEYS.index(key) % 12, bench.bar))
    for seed in tqdm(range(bench.args.num_samples), desc="endings", unit="piece"):
        key = KEYS[seed % 24]
        plan = ending_on_tonic(bench.free, layout, key)
        tokens = bench.compose(layout, plan, bench.args.cfg[0], seed + 1000, key)
        composed.append(ending(tokens, KEYS.index(key) % 12, bench.bar))
    names = ("something sounds in the last bar", "the tonic is its lowest note", "at most half of the notes of others")
    return [
        {"": what, **dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))}
        for what, rows in (("songs", songs), ("composed", composed))
    ]


def ending(tokens: Tokens, tonic: int, bar: int) -> tuple[bool, bool, bool]:
    """How a piece ends: does something sound in the last bar, is the tonic the lowest note of the last bar with music?

    And: are at most half as many notes struck in the last bar as in the others on average?
    """
    sounding = np.flatnonzero((tokens > 0).any(0))
    if not len(sounding):
        return False, False, True
    start = int(sounding[-1]) // bar * bar
    lowest = int(np.flatnonzero((tokens[:, start : start + bar] > 0).any(1))[0])
    struck = (tokens >= ONSET).sum(0).reshape(-1, bar).sum(1)
    return start + bar == tokens.shape[1], lowest % 12 == tonic, bool(struck[-1] <= struck[:-1].mean() / 2)


def of_accompaniments(bench: Bench, corpus: Corpus, excerpts: list[tuple[int, int]]) -> dict[str, Any]:
    """Melodies of real excerpts are given with their chords; what is composed under them, beside what was written."""
    layout = bench.layout
    written = composed = changed = 0
    heard, wanted = [], []
    for seed, (song, start) in enumerate(tqdm(excerpts, desc="accompaniments", unit="piece")):
        notes, voices = corpus.notes(song), corpus.voices(song)
        melody = tokens_from_notes(notes[voices == MELODY], start, start + layout.num_steps)
        if not (melody >= ONSET).any():
            continue
        roll = bench.excerpt(corpus, song, start)
        task = accompaniment(roll, replace(roll, tokens=melody), "below", bench.bar)
        plan, key = bench.plan(corpus, song, start), bench.key(corpus, song, start)
        tokens = bench.compose(layout, plan, bench.args.cfg[0], seed, key, task.known)
        changed += int((tokens[task.known >= 0] != task.known[task.known >= 0]).sum())
        written += int((roll.tokens >= ONSET).sum() - (melody >= ONSET).sum())
        composed += int((tokens >= ONSET).sum() - (melody >= ONSET).sum())
        heard.append(heard_chords(tokens, layout))
        wanted.append(plan.chords)
    return {
        "pieces": len(wanted),
        "notes composed to notes written": composed / max(1, written),
        "given cells changed": changed,
        **agreement(np.concatenate(wanted), np.concatenate(heard)),
    }


def of_gaps(bench: Bench, corpus: Corpus, excerpts: list[tuple[int, int]]) -> dict[str, float]:
    """Bars 5 to 8 of 16 are composed anew: low notes a bar, and bars with a bass on the downbeat, inside and around."""
    layout = bench.layout
    inside, around, down_inside, down_around = [], [], [], []
    gap = slice(4, 8)
    for seed, (song, start) in enumerate(tqdm(excerpts, desc="gaps", unit="piece")):
        region = np.zeros((PITCHES, layout.num_steps), bool)
        region[:, gap.start * bench.bar : gap.stop * bench.bar] = True
        task = inpainting(bench.excerpt(corpus, song, start), [region], bench.bar)
        plan = piece_plan(layout, bench.grid, known=task.known, meters=(DEFAULT_METER,))
        filled = bench.compose(layout, plan, bench.args.cfg[0], seed, bench.key(corpus, song, start), task.known)
        low = columns_of(layout, filled)[:, :LOW] >= ONSET
        notes, downbeat = np.sum(low, axis=(1, 2)), np.any(low[:, :, 0], axis=1)
        inside.append(notes[gap].mean())
        around.append(np.delete(notes, np.r_[gap]).mean())
        down_inside.append(downbeat[gap].mean())
        down_around.append(np.delete(downbeat, np.r_[gap]).mean())
    names = ("low notes inside", "low notes around", "bass on downbeats inside", "bass on downbeats around")
    values = (inside, around, down_inside, down_around)
    return {name: float(np.mean(value)) for name, value in zip(names, values, strict=True)}


def of_meters(bench: Bench, corpus: Corpus) -> list[dict[str, Any]]:
    """Bars with a low note on the downbeat, in songs of each meter and in what is composed in it."""
    config, rows = bench.model.config, []
    names = next((one.values for one in config.attributes if one.name == "meter"), ())
    for label, name in enumerate(names, start=1):
        songs = [s for s in corpus.indices("valid") if meter_label(main_meter(corpus.meters(s))) == name]
        if len(songs) < LEAST_SONGS:
            continue
        real = [on_downbeats(corpus.tokens(song), corpus.downbeats(song)) for song in songs]
        meter = parse_meter(name)
        layout = layout_of(config, steps_of_bars(BARS, bench.grid, *meter), meters=((0, *meter),))
        composed = []
        for seed in tqdm(range(bench.args.num_samples), desc=f"meter {name}", unit="piece"):
            labels = bench.labels(KEYS[seed % 24])
            labels[bench.column["meter"]] = label
            tokens = bench.compose(layout, None, bench.args.cfg[-1], seed, labels=labels)
            starts = layout.starts[np.r_[True, np.diff(layout.bars) > 0]]
            composed.append(on_downbeats(tokens, starts))
        rows.append({"meter": name, "songs": float(np.mean(real)), "composed": float(np.mean(composed))})
    return rows


def on_downbeats(tokens: Tokens, downbeats: npt.NDArray[np.integer]) -> float:
    """The share of bars that begin with a low note."""
    return float(np.any(tokens[:LOW, downbeats] >= ONSET, axis=0).mean())


def chosen_excerpts(corpus: Corpus, songs: Sequence[int], count: int, bar: int) -> list[tuple[int, int]]:
    """Excerpts (song, first step) of 16 bars of 4/4: one a song, or more where there are fewer songs than ``count``."""
    excerpts = Excerpts(corpus, BARS * bar, patch=bar, bar_columns=True)
    rounds: list[list[tuple[int, int]]] = []
    for song in songs:
        starts = excerpts.all_starts(song)
        fitting = [start for start in starts[1:] + starts[:1] if (excerpts.window(song, start).lengths == bar).all()]
        for number, start in enumerate(fitting):
            if number == len(rounds):
                rounds.append([])
            rounds[number].append((song, start))
    found = rounds[0] if rounds else []
    for more in rounds[1:]:
        if len(found) < count:
            found = found + evenly(more, count - len(found))
    return evenly(found, count)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, and print tables."""
    corpus = Corpus.open(args.data)
    songs = corpus.indices("valid")
    result: dict[str, Any] = {"corpus": of_corpus(corpus, songs)}
    print(f"{corpus.path.name}, {len(songs)} validation songs")
    print_facts(result["corpus"])
    if args.model:
        model = load_pretrained(args.model)
        if not model.config.plan_width:
            raise UserError(f"--model {args.model}: it was trained without plans")
        check_fits(corpus, args.data, model)
        bench = Bench(model, args)
        excerpts = chosen_excerpts(corpus, songs, args.num_samples, bench.bar)
        result["model"] = model.checkpoint_id
        print(f"\n{model.checkpoint_id}: {args.num_samples} pieces each")
        parts = {
            "chords": lambda: of_chords(bench, corpus, excerpts),
            "form": lambda: of_form(bench),
            "endings": lambda: of_endings(bench, corpus),
            "accompaniments": lambda: of_accompaniments(
                bench, corpus, chosen_excerpts(corpus, songs, args.accompaniments or args.num_samples, bench.bar)
            ),
            "gaps": lambda: of_gaps(bench, corpus, excerpts),
            "meters": lambda: of_meters(bench, corpus),
        }
        for name in args.parts or parts:
            result[name] = parts[name]()
            print(f"\n{name}")
            if result[name]:
                print_facts(result[name])
    return result


def print_facts(facts: Any) -> None:
    """Figures as a table, of one row or several."""
    rows = facts if isinstance(facts, list) else [facts]
    flat = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in rows]
    for row, plain in zip(rows, flat, strict=True):
        plain |= {f"{k}: {kk}": vv for k, v in row.items() if isinstance(v, dict) for kk, vv in v.items()}
    print(by_row(flat))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.planning", "plans found in music, and plans obeyed")
    top.add_argument("--data", required=True, help="packed corpus")
    top.add_argument("--model", help="a shipped model or a checkpoint that knows plans (default: the corpus alone)")
    top.add_argument("--cfg", type=float, nargs="+", default=[1.0, 2.0, 4.0], help="guidance scales")
    top.add_argument("--num_samples", type=int, default=16, help="pieces for each figure")
    top.add_argument("--accompaniments", type=int, default=0, help="accompaniments (default: as num_samples)")
    choices = ("chords", "form", "endings", "accompaniments", "gaps", "meters")
    top.add_argument("--parts", nargs="+", choices=choices, help="which figures of the model (default: all)")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
