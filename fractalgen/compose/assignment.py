"""From the flags and files of ``fractalgen generate`` to known cells, limits and the MIDI file to write.

Known cells condition the model at every level; nothing is pasted over afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from fractalgen.config import GenerateConfig, ModelConfig
from fractalgen.errors import UserError
from fractalgen.music import MAX_STEPS
from fractalgen.music.labels import KEYS, spell_key
from fractalgen.music.midi import MidiEvents, find_tracks, read_midi
from fractalgen.music.midi_events import Part
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.selection import (
    bars_to_steps,
    parse_pitch_classes,
    parse_pitch_range,
    parse_rectangle,
    score_bars,
    time_span,
)
from fractalgen.music.splice import splice_midi
from fractalgen.music.tasks import Task, Voice, accompaniment, continuation, inpainting, variation, whole_patches
from fractalgen.music.tokens import PITCHES, TEMPO, steps_of_bars

if TYPE_CHECKING:
    from fractalgen.trace import Trace

MODES: dict[str, tuple[str, ...]] = {
    "unconditional": (),
    "conditional": ("condition_midi", "condition_length", "condition_bars", "generation_length"),
    "inpainting": ("input_midi", "mask_start", "mask_end", "mask", "compose_bars"),
    "accompany": ("input_midi", "voice", "side", "compose_bars"),
    "variation": ("input_midi", "strength", "compose_bars"),
}
"""The flags that belong to each mode."""


@dataclass(frozen=True)
class Assignment:
    """What is to be composed.

    ``task``: the given cells, None if there are none.  ``width``: steps of the piece, ``padded_width``: the whole
    patches that they are composed in.  ``allowed``: bool (128, W) cells
    that may sound, None: all.  ``template``: the input, whose tempi and meters the piece takes over.  ``write``
    writes the piece as MIDI, with a text event.  ``signature``: the key signature of the input, if it has one.
    """

    task: Task | None
    width: int
    padded_width: int
    allowed: npt.NDArray[np.bool_] | None
    template: PianoRoll | None
    write: Callable[[PianoRoll, Path, str], None]
    signature: tuple[int, bool] | None = None

    def known(self) -> npt.NDArray[np.int16] | None:
        """Tokens (128, W), -1 where a cell is to be composed; None if nothing is given."""
        return None if self.task is None else self.task.known

    def finish(self, roll: PianoRoll) -> PianoRoll:
        """The piece: as wide as asked for, in the tempo and meter of the input."""
        tokens = roll.tokens[:, : self.width]
        if self.template is None:
            return replace(roll, tokens=tokens)
        return replace(roll, tokens=tokens, tempos=self.template.tempos, time_signatures=self.template.time_signatures)

    def annotate(self, trace: Trace, roll: PianoRoll) -> Trace:
        """The trace with the tempi and meters of the finished piece."""
        facts = {
            "length": self.width,
            "tempo": roll.tempos[0][1],
            "tempos": roll.tempos,
            "meters": roll.time_signatures,
            "steps_per_bar": roll.steps_per_bar,
        }
        return replace(trace, settings={**trace.settings, **facts})


def check_mode(cfg: GenerateConfig) -> None:
    """Refuse flags that do not fit the mode or each other, before anything is read (UserError)."""
    defaults = GenerateConfig()
    for mode, names in MODES.items():
        for name in names:
            value = getattr(cfg, name)
            if mode != cfg.mode and name not in MODES[cfg.mode] and value != getattr(defaults, name):
                modes = " or ".join(other for other, flags in MODES.items() if name in flags)
                raise UserError(f"--{name} {_shown(value)}: belongs to --mode {modes}, this is --mode {cfg.mode}")
    lengths = [name for name in ("target_width", "bars", "seconds", "generation_length") if getattr(cfg, name)]
    if len(lengths) > 1:
        one, two = (f"--{name} {getattr(cfg, name)}" for name in lengths[:2])
        raise UserError(f"{one} and {two}: give only one length")
    if lengths and cfg.mode not in ("unconditional", "conditional"):
        raise UserError(f"--{lengths[0]} {getattr(cfg, lengths[0])}: in --mode {cfg.mode} the input sets the length")
    for name in ("bars", "seconds", "generation_length", "condition_length", "condition_bars", "target_width"):
        value = getattr(cfg, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} {value}: must be more than 0")
    source = MODES[cfg.mode][0] if MODES[cfg.mode] else None
    if source and not getattr(cfg, source):
        raise UserError(f"--mode {cfg.mode}: --{source} is needed, a MIDI file")
    if cfg.condition_length is not None and cfg.condition_bars is not None:
        raise UserError(
            f"--condition_length {cfg.condition_length} and --condition_bars {cfg.condition_bars}:"
            " give only one of them"
        )
    if (cfg.mask_start is None) != (cfg.mask_end is None):
        raise UserError(f"--mask_start {cfg.mask_start} --mask_end {cfg.mask_end}: both are needed, or --mask")
    if cfg.mode == "inpainting" and cfg.mask_start is None and not cfg.mask and not cfg.compose_bars:
        raise UserError(
            "--mode inpainting: what is to be composed? --compose_bars, --mask, or --mask_start and --mask_end"
        )
    if cfg.scale and cfg.key and (key := spell_key(cfg.key)):
        tonic, minor = divmod(KEYS.index(key), 12)[::-1]
        triad = {tonic, (tonic + (3 if minor else 4)) % 12, (tonic + 7) % 12}
        if not triad <= parse_pitch_classes(cfg.scale):
            raise UserError(f"--scale {cfg.scale} and --key {cfg.key}: the scale lacks notes of that key's first chord")
    if cfg.voice not in get_args(Voice) and not cfg.voice.startswith("track:"):
        raise UserError(f"--voice {cfg.voice}: highest, lowest, all, or track:N (a number from 0, or a name)")


def assignment(cfg: GenerateConfig, model: ModelConfig, seed: int) -> Assignment:
    """Read the input that the flags name and determine what a model of this kind composes.

    Raises:
        UserError: an input that cannot be read, or a region, length or limit that cannot be.
    """
    patch = model.patch
    if cfg.mode == "unconditional":
        length = _length(cfg, cfg.tempo or TEMPO, model)
        width = model.crop_length if length is None else length
        padded = width if cfg.target_width else whole_patches(width, patch)
        return Assignment(None, width, padded, _allowed(cfg, model, padded), None, PianoRoll.to_midi)
    path = Path(cfg.condition_midi or cfg.input_midi or "")
    tracks: tuple[Part, ...] | None = None
    if cfg.mode == "accompany" and cfg.voice.startswith("track:"):
        tracks, named = find_tracks(path, cfg.voice.removeprefix("track:"))
        print(f"--voice {cfg.voice}: track {named}")
    pedal = cfg.pedal == "follow"
    events = read_midi(path, model.steps_per_quarter, tracks=tracks, pedal=pedal)
    for line in remarks(events):
        print(f"{path}: {line}")
    roll = PianoRoll.from_events(events, model.velocity_bins)
    cut = None
    within = score_bars(cfg.compose_bars, roll) if cfg.compose_bars else None
    if cfg.mode == "conditional":
        cut, asked = roll.width, f"--condition_midi {path}"
        if cfg.condition_bars is not None:
            cut, asked = bars_to_steps(roll, cfg.condition_bars), f"--condition_bars {cfg.condition_bars}"
        elif cfg.condition_length is not None:
            cut, asked = cfg.condition_length, f"--condition_length {cfg.condition_length}"
        tempo = [tempo for step, tempo in roll.tempos if step < max(cut, 1)][-1]
        meter = [(beats, unit) for step, beats, unit in roll.time_signatures if step < max(cut, 1)][-1]
        length = _length(cfg, tempo, model, *meter)
        task = continuation(roll, cut, length or model.crop_length, patch, asked)
        roll = replace(  # the tempo and the meter at this point continue
            roll,
            tempos=events.tempos_before(cut),
            time_signatures=tuple(event for event in roll.time_signatures if event[0] < cut),
        )
    elif cfg.mode == "inpainting":
        spans = [] if cfg.mask_start is None else [time_span(roll, cfg.mask_start, cfg.mask_end or 0)]
        if within is not None:
            spans.append(within)
        task = inpainting(roll, [*spans, *(parse_rectangle(text, roll) for text in cfg.mask)], patch)
    else:
        if cfg.mode == "accompany":
            voice: Voice | PianoRoll = roll if tracks else _voice(cfg.voice)
            if tracks and within is not None:  # outside of these bars the other tracks stay
                given = read_midi(path, model.steps_per_quarter, tracks=tracks, pedal=pedal, within=within[0])
                roll = PianoRoll.from_events(given, model.velocity_bins)
            task = accompaniment(roll, voice, cfg.side, patch, within)
        else:
            task = variation(roll, cfg.strength, np.random.default_rng(seed), patch, within)

    def write(piece: PianoRoll, target: Path, note: str) -> None:
        others_go = None if within is None else within[0]
        splice_midi(
            path, piece, task.composed, target, cut=cut, tracks=tracks, within=others_go, pedal=pedal, note=note
        )

    allowed = _allowed(cfg, model, task.known.shape[1])
    if allowed is not None and not (allowed & (task.known < 0)).any():
        raise UserError(f"{_limits(cfg)}: where something is to be composed, no cell may sound")
    return Assignment(task, task.width, task.known.shape[1], allowed, roll, write, events.key)


def remarks(events: MidiEvents) -> list[str]:
    """Remarks about the given music, one line each."""
    lines = list(events.remarks)
    if events.pedalled:
        lines.append(f"the pedal lengthens {events.pedalled} notes (--pedal ignore: they end with their key)")
    merged, moved = events.misplaced()
    if merged or moved:
        grid = events.fitting_grid()
        keeps = f"; a model of --steps_per_quarter {grid} would keep them" if grid else ""
        lines.append(f"{merged} notes merged with others, {moved} moved by more than a quarter of a time step{keeps}")
    return lines


def _length(cfg: GenerateConfig, tempo: float, model: ModelConfig, beats: int = 4, unit: int = 4) -> int | None:
    """Number of steps to compose in that tempo and meter; None if no flag says."""
    steps = cfg.generation_length or cfg.target_width
    if cfg.bars is not None:
        steps = steps_of_bars(cfg.bars, model.steps_per_quarter, beats, unit)
    elif cfg.seconds is not None:
        steps = round(cfg.seconds * tempo / 60 * model.steps_per_quarter)
    if steps is not None and not 0 < steps <= MAX_STEPS:
        flag = next(name for name in ("generation_length", "target_width", "bars", "seconds") if getattr(cfg, name))
        raise UserError(f"--{flag} {getattr(cfg, flag)}: {steps} time steps; a piece has 1 to {MAX_STEPS}")
    return steps


def _allowed(cfg: GenerateConfig, model: ModelConfig, width: int) -> npt.NDArray[np.bool_] | None:
    """Cells (128, width) that the limits allow."""
    if not (cfg.pitch_range or cfg.scale or cfg.silence):
        return None
    allowed = np.ones((PITCHES, width), np.bool_)
    if cfg.pitch_range:
        low, high = parse_pitch_range(cfg.pitch_range)
        allowed[:low] = allowed[high:] = False
    if cfg.scale:
        classes = parse_pitch_classes(cfg.scale)
        allowed[[pitch for pitch in range(PITCHES) if pitch % 12 not in classes]] = False
    blank = PianoRoll(np.zeros((PITCHES, width), np.uint8), model.steps_per_quarter)
    for text in cfg.silence:
        allowed &= ~parse_rectangle(text, blank, "--silence")
    if not allowed.any():
        raise UserError(f"{_limits(cfg)}: together they leave no cell that may sound")
    return allowed


def _limits(cfg: GenerateConfig) -> str:
    names = [name for name in ("pitch_range", "scale", "silence") if getattr(cfg, name)]
    return " ".join(f"--{name} {_shown(getattr(cfg, name))}" for name in names)


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _voice(name: str) -> Voice:
    return next(voice for voice in get_args(Voice) if voice == name)
