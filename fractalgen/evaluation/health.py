"""Automatic checks of a piece and of the process that composed it.

:func:`health_figures` gives figures, :func:`find_faults` the findings among them, each with its reason.  The limits
are where real music does not go: of the 3,692 crops of 256 steps of POP909 (training and validation) 6 have a finding
(a note held for more than four bars), of the 390 of the chorales none, replayed in whatever order.  A finding is a
reason to look, not a proof: a drone or a clock is music too.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fractalgen.config import DiagnoseConfig
from fractalgen.errors import UserError
from fractalgen.features.notes import as_rolls
from fractalgen.music.measures import cell_density, sounding_pitches
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import ONSET, PITCHES, SILENCE, notes_from_tokens, orphan_holds
from fractalgen.trace import Trace

STEPS_PER_BAR = 16  # where nothing says how long a bar is: four quarters
MIN_NOTES = 16  # fewer notes show no pattern
MIN_PATCHES = 32  # of the first level, four bars of a default model; where fewer are composed the process says little
FRAMES = 8  # an AR process is judged in so many frames, as its animations show it by default
PITCH_MARGIN = 6  # semitones, as far as training transposes


Piece: TypeAlias = Trace | PianoRoll | NDArray[Any]
"""A trace, a roll, or tokens (128, T), of which a bar has 16 steps."""


@dataclass(frozen=True)
class Reference:
    """What is usual in a corpus: ``pitch`` (MIDI, lowest and highest), ``density`` (share of cells that sound)."""

    pitch: tuple[float, float]
    density: tuple[float, float]

    @classmethod
    def of(cls, rolls: Any) -> Reference:
        """The 1st to 99th percentile over real token rolls (n, 128, T), silent ones left out.

        Raises:
            ValueError: no roll sounds.
        """
        sounding = as_rolls(rolls) != SILENCE
        sounding = sounding[sounding.any(axis=(1, 2))]
        if not len(sounding):
            raise ValueError("a reference needs a roll that sounds")
        keys = sounding.any(axis=2)
        lowest, highest = keys.argmax(axis=1), PITCHES - 1 - keys[:, ::-1].argmax(axis=1)
        density = cell_density(sounding)
        return cls(
            (float(np.percentile(lowest, 1)), float(np.percentile(highest, 99))),
            (float(np.percentile(density, 1)), float(np.percentile(density, 99))),
        )


POP909 = Reference(pitch=(29, 98), density=(0.014, 0.038))
"""Of POP909 (Wang et al., ISMIR 2020), training split, 3,216 crops of 256 sixteenths: for files of unknown origin."""


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong: its ``name`` (of :data:`FINDINGS`), the figure and its limit, and a ``reason``."""

    name: str
    value: float
    limit: float
    reason: str


class Rule(NamedTuple):
    """A finding: its ``figure`` lies above (or below) a limit; ``reason`` is a format of {value}."""

    name: str
    figure: str
    sign: str
    limit: float
    reason: str


FIGURES = {
    "notes": ("notes", "{:.0f}"),
    "density": ("cells sounding", "{:.1%}"),
    "pitch_min": ("lowest pitch", "{:.0f}"),
    "pitch_max": ("highest pitch", "{:.0f}"),
    "far_pitches": ("notes far outside the usual pitches", "{:.1%}"),
    "commonest_pitch": ("notes on the commonest pitch", "{:.1%}"),
    "longest_note": ("longest note, in bars", "{:.2f}"),
    "orphan_holds": ("holds without a note", "{:.0f}"),
    "repetition": ("same notes again within a bar", "{:.1%}"),
    "struck_steps": ("steps that strike two notes or more", "{:.1%}"),
    "refinement": ("area that a finer level empties, least", "{:.1%}"),
    "jump": ("notes beyond its share in one frame", "{:.1%}"),
    "frozen": ("patches in a row without a note", "{:.1%}"),
}
"""Label and format of each figure of :func:`health_figures`."""


def _rules(reference: Reference, piece: Piece | None = None) -> list[Rule]:
    """Every rule with its limit for a piece; what was measured is over the crops named at the top of this file."""
    sparse, dense = reference.density
    trace = piece if isinstance(piece, Trace) else None
    # Composed all over the roll (MAR), a long run without a note cannot be a rest.
    iterative = trace is not None and trace.generators[0] != "ar"
    # Composed pitch row by pitch row (AR, row-major), most notes lie in two of eight frames.
    by_pitch = trace is not None and not iterative and trace.scan_order == "row_major"
    return [
        Rule("silent", "density", "<", 1e-9, "nothing sounds"),
        # All ten fingers at every step are 8 % of the cells; real crops reach 4.4 %.
        Rule("saturated", "density", ">", 0.25, "{value:.0%} of the cells sound, ten fingers reach 8 %"),
        # Twice what the fullest crops have: two pieces at once.
        Rule("dense", "density", ">", 2 * dense, "{value:.1%} of the cells sound, far more than in real music"),
        # A quarter of what the emptiest crops have: of POP909, one voice that rests more than it sounds.
        Rule("sparse", "density", "<", sparse / 4, "{value:.2%} of the cells sound, far less than in real music"),
        # Real crops: at most 0.5 % of the notes, POP909's range with the margin.
        Rule("far_pitches", "far_pitches", ">", 0.05, "{value:.0%} of the notes lie far outside the usual pitches"),
        Rule("one_pitch", "commonest_pitch", ">", 0.6, "{value:.0%} of the notes are on one pitch, real: up to 35 %"),
        # The longest of 99.5 % of the crops is 3 bars.
        Rule("stuck_note", "longest_note", ">", 4, "a note is held for {value:.1f} bars"),
        Rule("orphan_holds", "orphan_holds", ">", 0, "holds of a note that was never struck: {value:.0f}"),
        # Real crops: 0.84 at most, 0.5 in 99 of 100.
        Rule("repetition", "repetition", ">", 0.9, "{value:.0%} of the notes come back within a bar, as in a loop"),
        # Many pieces strike a note at each sixteenth; two or more at (nearly) each one, none: 0.88 at most.
        Rule("no_rests", "struck_steps", ">", 0.95, "{value:.0%} of the steps strike two notes or more, none rests"),
        # Blocks of 16x16 lose at least 40 % of their area to 4x4, and those 73 % of theirs to cells.
        Rule("not_refined", "refinement", "<", 0.1, "a finer level changes {value:.0%} of what a coarser one drew"),
        # Replayed in column-major order and in MAR iterations real crops reach 0.38, by pitch rows 0.72.
        Rule("jump", "jump", ">", 0.75 if by_pitch else 0.45, "one frame brings {value:.0%} of the notes too many"),
        # Real songs end in up to half a crop of silence: 0.52; scattered over the roll: 0.31.
        Rule("frozen", "frozen", ">", 0.4 if iterative else 0.6, "{value:.0%} of the patches bring, in a row, no note"),
    ]


FINDINGS = tuple(rule.name for rule in _rules(POP909))
"""Names of all findings."""


def health_figures(piece: Piece, reference: Reference = POP909) -> dict[str, float]:
    """The figures of one piece; keys as in :data:`FIGURES`.

    - ``notes`` struck; ``density``, share of cells that sound; ``pitch_min``, ``pitch_max`` (MIDI) of those
    - ``far_pitches``: share of notes more than half an octave outside ``reference.pitch``
    - ``commonest_pitch``: share of notes on the pitch that has most
    - ``longest_note``: bars; ``orphan_holds``: number of holds after silence, column 0 excepted
    - ``repetition``: the roll's onsets laid over themselves, up to a bar later, intersection over union, the largest
    - ``struck_steps``: share of time steps in which two notes or more are struck

    and, of what was composed, where a trace tells it:

    - ``refinement``: of the area of patches that sound, the share that is silent one level finer; the least of the
      levels down to cells, 0 where the hierarchical view shows no change
    - ``jump``: the largest difference, over the frames of the process, of the share of notes that a frame brings and
      the share of patches that it decides
    - ``frozen``: most patches decided one after the other without any that sounds, as a share of all

    What is undefined (in silence, without a trace, in too few notes or patches) is NaN.
    """
    tokens = piece.tokens if isinstance(piece, Trace | PianoRoll) else as_rolls(piece)[0]
    bar = piece.steps_per_bar if isinstance(piece, Trace | PianoRoll) else STEPS_PER_BAR
    figures = dict.fromkeys(FIGURES, math.nan)
    onsets = tokens >= ONSET
    keys = sounding_pitches(tokens)
    per_pitch = onsets.sum(axis=1)
    notes = int(per_pitch.sum())
    figures |= {
        "notes": notes,
        "density": float(cell_density(tokens)) if tokens.size else 0.0,
        "orphan_holds": orphan_holds(tokens),
    }
    if len(keys):
        longest = notes_from_tokens(tokens)["duration"].max()
        figures |= {"pitch_min": float(keys[0]), "pitch_max": float(keys[-1]), "longest_note": longest / bar}
    if notes:
        low, high = reference.pitch[0] - PITCH_MARGIN, reference.pitch[1] + PITCH_MARGIN
        pitches = np.arange(PITCHES)
        figures["far_pitches"] = float(per_pitch[(pitches < low) | (pitches > high)].sum() / notes)
    if notes >= MIN_NOTES:
        figures["commonest_pitch"] = float(per_pitch.max() / notes)
        figures["repetition"] = _repetition(onsets, bar)
        figures["struck_steps"] = float((onsets.sum(axis=0) >= 2).mean())
    if isinstance(piece, Trace):
        figures |= _process_figures(piece)
    return {name: float(value) for name, value in figures.items()}


def find_faults(piece: Piece, reference: Reference = POP909) -> list[Finding]:
    """Faults of a piece, a trace or token roll (128, T); empty if there are none.

    ``reference`` says what is usual.  Of a trace, the process is checked as well.
    """
    return _examined(piece, reference)[2]


def health_summary(pieces: Sequence[Piece], reference: Reference = POP909) -> tuple[dict[str, float], str]:
    """Scalars and one line about several pieces (at least one), of which any may be a trace or token roll (128, T).

    Returns:
        Scalars: ``found_NAME``, the share of pieces with each finding; ``healthy``, the share without any; the mean of
        each figure, over the pieces that have it.  And a line that tells every finding, the commonest first, with the
        reason for its first piece; empty when all are healthy.
    """
    figures, _, found = zip(*(_examined(piece, reference) for piece in pieces), strict=True)
    counts = Counter(finding.name for findings in found for finding in findings)
    scalars = {f"found_{name}": counts[name] / len(pieces) for name in FINDINGS}
    scalars["healthy"] = sum(not findings for findings in found) / len(pieces)
    for name in FIGURES:
        defined = [values[name] for values in figures if not math.isnan(values[name])]
        if defined:
            scalars[name] = sum(defined) / len(defined)
    reasons = {finding.name: finding.reason for findings in reversed(found) for finding in findings}
    details = "; ".join(f"{count} {name} ({reasons[name]})" for name, count in counts.most_common())
    return scalars, f"{sum(map(bool, found))} of {len(pieces)} look wrong: {details}" if details else ""


def diagnose(cfg: DiagnoseConfig) -> int:
    """``fractalgen diagnose``: figures and findings of traces and MIDI files; exit status 1 if there is any finding.

    Raises:
        UserError: a file that is neither, or cannot be read.
    """
    healthy = True
    for path in cfg.files:
        figures, rules, findings = _examined(_read(path), POP909)
        healthy = healthy and not findings
        count = len(findings)
        print(f"{path}: {count} finding{'s' * (count > 1)}" if count else f"{path}: healthy")
        print(_table(figures, rules))
        for finding in findings:
            print(f"  {finding.name}: {finding.reason}")
    return 0 if healthy else 1


def _read(path: str) -> Trace | PianoRoll:
    """A trace, or the roll of a MIDI file."""
    ending = Path(path).suffix.lower()
    if ending == ".npz":
        return Trace.load(path)
    if ending in (".mid", ".midi"):
        return PianoRoll.from_midi(path)
    raise UserError(f"{path}: neither a trace (.npz) nor a MIDI file (.mid, .midi)")


def _table(figures: Mapping[str, float], rules: Sequence[Rule]) -> str:
    """A line for every figure that is defined, with what is usual."""
    lines = []
    for name, (label, form) in FIGURES.items():
        if math.isnan(figures[name]):
            continue
        limits = [(rule.sign, rule.limit) for rule in rules if rule.figure == name and rule.name != "silent"]
        highest = min((limit for sign, limit in limits if sign == ">"), default=None)
        lowest = max((limit for sign, limit in limits if sign == "<"), default=None)
        bounds = (("at most", highest), ("at least", lowest))
        usual = ", ".join(f"{word} {form.format(limit)}" for word, limit in bounds if limit is not None)
        lines.append(f"  {label:40}{form.format(figures[name]):>8}   {usual}".rstrip())
    return "\n".join(lines)


def _examined(piece: Piece, reference: Reference) -> tuple[dict[str, float], list[Rule], list[Finding]]:
    """The figures of a piece, the rules for pieces that came about as it did, and those that are broken.

    Of a silent piece, and of two rules for one figure, the first says it all.
    """
    figures, rules = health_figures(piece, reference), _rules(reference, piece)
    found: dict[str, Finding] = {}
    for rule in rules:
        value = figures[rule.figure]
        broken = value > rule.limit if rule.sign == ">" else value < rule.limit  # NaN (undefined) breaks none
        if broken and rule.figure not in found:
            found[rule.figure] = Finding(rule.name, value, rule.limit, rule.reason.format(value=value))
            if rule.name == "silent":
                break
    return figures, rules, list(found.values())


def _repetition(onsets: NDArray[np.bool_], bar: int) -> float:
    """Largest overlap (intersection over union) of onsets (128, T) with themselves, 1 step to a ``bar`` later."""
    overlaps = [0.0]
    for lag in range(1, min(bar, onsets.shape[1] // 4) + 1):  # a lag near the width compares next to nothing
        earlier, later = onsets[:, :-lag], onsets[:, lag:]
        either = int((earlier | later).sum())
        overlaps.append(int((earlier & later).sum()) / either if either else 0.0)
    return max(overlaps)


def _process_figures(trace: Trace) -> dict[str, float]:
    """The figures of :func:`health_figures` that need a trace."""
    result: dict[str, float] = {}
    sounding = (trace.tokens != SILENCE) & ~trace.known
    areas = []
    for size in trace.patches:
        blocks = _blocks(sounding, size).any(axis=(1, 3), keepdims=True)
        areas.append(int((blocks & _blocks(~trace.known, size)).sum()))
    if areas[0] and len(areas) > 1:
        result["refinement"] = min(1 - fine / coarse for coarse, fine in itertools.pairwise(areas))

    count, size = len(trace.steps), trace.patches[0]
    step = _blocks(trace.decided[0], size).max(axis=(1, 3))  # of every patch, -1 where nothing was composed
    sound = _blocks(sounding, size).any(axis=(1, 3))
    patches, total = np.bincount(step[step >= 0], minlength=count), int((step >= 0).sum())
    if total < MIN_PATCHES:
        return result
    done = np.cumsum(patches)
    bring = np.bincount(step[(step >= 0) & sound], minlength=count) > 0
    result["frozen"] = float((np.append((done - patches)[bring], total) - np.append(0, done[bring])).max() / total)

    composed = (trace.tokens >= ONSET) & (trace.decided[0] >= 0)
    notes = np.bincount(trace.decided[0][composed], minlength=count)
    if notes.sum() >= MIN_NOTES:
        starts = np.arange(0, count, max(1, count // FRAMES) if trace.generators[0] == "ar" else 1)
        more = np.add.reduceat(notes, starts) / notes.sum() - np.add.reduceat(patches, starts) / total
        result["jump"] = float(more.max())
    return result


def _blocks(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A plane (128, T) as (rows, pitches, columns, steps), in patches of that size."""
    (height, width), (pitches, steps) = plane.shape, size
    return plane.reshape(height // pitches, pitches, width // steps, steps)
