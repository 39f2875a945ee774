"""From the flags and files of ``fractalgen generate`` to known cells, limits and the MIDI file to write.

Known cells condition the model at every level; nothing is pasted over afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from fractalgen.compose.checks import VOICES
from fractalgen.config import GenerateConfig, ModelConfig
from fractalgen.config.values import as_typed
from fractalgen.data.sources import MIDI_ENDINGS
from fractalgen.errors import UserError
from fractalgen.music import MAX_STEPS
from fractalgen.music.bars import BarLayout, parse_meter
from fractalgen.music.chords import Chords, flats_in
from fractalgen.music.lead_sheet import chord_markers, melody_track
from fractalgen.music.midi import MidiEvents, end_mark, read_midi
from fractalgen.music.midi_events import Part, read_file
from fractalgen.music.midi_tracks import find_tracks
from fractalgen.music.musicxml import SCORE_ENDINGS
from fractalgen.music.pianoroll import Markers, PianoRoll
from fractalgen.music.plan import Plan
from fractalgen.music.plan import markers as markers_of
from fractalgen.music.planning import natural_bars, steps_to_form
from fractalgen.music.selection import (
    bars_to_steps,
    parse_pitch_classes,
    parse_pitch_range,
    parse_rectangle,
    score_bars,
    time_span,
)
from fractalgen.music.splice import TRACK_NAME, splice_midi
from fractalgen.music.tasks import Plane, Task, Voice, accompaniment, continuation, inpainting, variation, whole_patches
from fractalgen.music.tokens import PITCHES, TEMPO, Meters, steps_of_bars, tokens_from_notes
from fractalgen.music.voices import MELODY, hands, melody_beside_chords

if TYPE_CHECKING:
    from fractalgen.trace import Trace


@dataclass(frozen=True)
class Assignment:
    """What is to be composed.

    ``task``: the given cells, None if there are none.  ``width``: steps of the piece; ``layout``: the columns that they
    are composed in.  ``allowed``: bool (128, W) cells that may sound, None: all.  ``template``: the input, whose tempi
    and meters the piece takes over; ``meters``: those of the piece.  ``write`` writes the piece as MIDI, with a text
    event and markers (step, text).  ``signature``: see :func:`meant_signature`.  ``changes``: chords of a lead sheet.
    ``remarks``: what the user should know of the input, a line each.
    """

    task: Task | None
    width: int
    layout: BarLayout
    allowed: npt.NDArray[np.bool_] | None
    template: PianoRoll | None
    meters: Meters
    write: Callable[[PianoRoll, Path, str, Markers], None]
    signature: tuple[int, bool] | None = None
    changes: Chords = ()
    remarks: tuple[str, ...] = ()

    def known(self) -> npt.NDArray[np.int16] | None:
        """Tokens (128, W), -1 where a cell is to be composed; None if nothing is given."""
        return None if self.task is None else self.task.known

    def markers(self, plan: Plan | None, key: str | None) -> Markers:
        """Marker texts (step, text): sections and chords of the plan, where something is composed.

        A lead sheet has its own chords.
        """
        if plan is None:
            return ()
        if self.changes:
            plan = replace(plan, chords=np.zeros_like(plan.chords))
        composed = None if self.task is None else np.any(self.task.composed, axis=0)
        found = markers_of(plan, self.layout, flats_in(key), composed)
        return [(step, text) for step, text in found if step < self.width]

    def finish(self, roll: PianoRoll) -> PianoRoll:
        """The piece: as wide as asked for, in the tempo and meter of the input."""
        tokens = roll.tokens[:, : self.width]
        if self.template is None:
            return replace(roll, tokens=tokens, time_signatures=self.meters)
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


def resolve_lead_sheet(cfg: GenerateConfig) -> GenerateConfig:
    """A lead sheet in a MIDI file is also the music that is given.

    Raises:
        UserError: no melody can be found in it, or a text file of chords comes without a melody.
    """
    if cfg.mode != "accompany":
        return cfg
    if cfg.lead_sheet is None:
        return replace(cfg, voice=cfg.voice or "highest")
    if cfg.chords is not None:
        raise UserError(f"--lead_sheet {cfg.lead_sheet} and --chords {cfg.chords}: give only one of them")
    if not is_midi(cfg.lead_sheet):
        if cfg.input_midi is None:
            raise UserError(f"--lead_sheet {cfg.lead_sheet}: holds chords alone; --input_midi is needed, the melody")
        return replace(cfg, voice=cfg.voice or "highest")
    if cfg.input_midi not in (None, cfg.lead_sheet):
        raise UserError(f"--lead_sheet {cfg.lead_sheet} and --input_midi {cfg.input_midi}: give only one MIDI file")
    return replace(cfg, input_midi=cfg.lead_sheet, voice=cfg.voice or melody_track(Path(cfg.lead_sheet)))


def is_midi(path: str) -> bool:
    """Whether a lead sheet is a MIDI file or a score, by its name; other files hold text."""
    return path.lower().removesuffix(".gz").endswith((*MIDI_ENDINGS, *SCORE_ENDINGS))


def assignment(cfg: GenerateConfig, model: ModelConfig, seed: int) -> Assignment:
    """Read the input that the flags name and determine what a model of this kind composes.

    Raises:
        UserError: an input that cannot be read, or a region, length or limit that cannot be.
    """
    if cfg.mode == "unconditional":
        return _from_nothing(cfg, model)
    path = Path(cfg.condition_midi or cfg.input_midi or "")
    marked = cfg.lead_sheet is not None and is_midi(cfg.lead_sheet)
    changes = chord_markers(Path(cfg.lead_sheet or ""), model.steps_per_quarter) if marked else ()
    tracks: tuple[Part, ...] | None = None
    said: list[str] = []
    voice = cfg.voice or "highest"
    if cfg.mode == "accompany" and voice.startswith("track:"):
        tracks, named = find_tracks(path, voice.removeprefix("track:"))
        said.append(f"--voice {voice}: track {named}")
    reading: dict[str, Any] = {"tracks": tracks, "pedal": cfg.pedal == "follow"}
    events = read_midi(path, model.steps_per_quarter, **reading)
    said += [f"{path}: {line}" for line in remarks(events, cfg.mode)]
    roll = PianoRoll.from_events(events, model.velocity_bins)
    kept: PianoRoll | Voice = roll if tracks else cast("Voice", voice)
    if cfg.mode == "accompany" and voice in VOICES:
        kept = voice_of(events, voice, path, model, may_rest=bool(changes))
    within = _within(cfg, roll)
    if tracks and within is not None:
        if (within != within[0]).any():
            raise UserError(
                f"--voice {voice} and --mask {as_typed(cfg.mask)}: beside a track, only rectangles of all pitches"
            )
        reading["within"] = within[0]  # outside of these bars the other tracks stay
        roll = PianoRoll.from_events(read_midi(path, model.steps_per_quarter, **reading), model.velocity_bins)
    cut = None
    if cfg.mode == "conditional":
        cut, task = _continuation(cfg, roll, model, path)
        meters = tuple(event for event in roll.time_signatures if event[0] <= cut)
        roll = replace(roll, tempos=events.tempos_before(cut), time_signatures=meters)  # at this point these continue
    elif cfg.mode == "inpainting":
        spans = [] if cfg.mask_start is None else [time_span(roll, cfg.mask_start, cfg.mask_end or 0)]
        task = inpainting(roll, spans if within is None else [*spans, within], model.column)
    elif cfg.mode == "accompany":
        task = accompaniment(roll, kept, cfg.side, model.column, within)
    else:
        task = variation(roll, cfg.strength, np.random.default_rng(seed), (model.patch, model.column), within)
    if model.bar_columns:  # no whole patches to fill up
        task = replace(task, known=task.known[:, : task.width])

    def write(piece: PianoRoll, target: Path, note: str, markers: Markers) -> None:
        told: dict[str, Any] = {"note": note, "markers": markers, "hands": cfg.hands}
        splice_midi(path, piece, task.composed, target, cut=cut, **reading, **told)

    width = task.known.shape[1]
    allowed = _allowed(cfg, model, width)
    if allowed is not None and not (allowed & (task.known < 0)).any():
        raise UserError(f"{_limits(cfg)}: where something is to be composed, no cell may sound")
    meters = roll.time_signatures  # as the piece goes on
    layout = model.layout(meters, width)
    signature = meant_signature(path, events)
    return Assignment(task, task.width, layout, allowed, roll, meters, write, signature, changes, tuple(said))


def _from_nothing(cfg: GenerateConfig, model: ModelConfig) -> Assignment:
    """A piece of which nothing is given."""
    meter = (4, 4) if cfg.meter is None else parse_meter(cfg.meter)
    length = _length(cfg, cfg.tempo or TEMPO, model, *meter)
    if length is None:
        bars = natural_bars(cfg.form, cfg.chords, model.columns)
        length = steps_of_bars(bars, model.steps_per_quarter, *meter) if model.bar_columns else model.crop_length
        if length > MAX_STEPS:
            flag = "--chords" if cfg.form is None else "--form"
            raise UserError(f"{flag}: {bars} bars are {length} time steps; a piece has 1 to {MAX_STEPS}")
    padded = length if cfg.target_width or model.bar_columns else whole_patches(length, model.column)
    meters = ((0, *meter),)

    def write(piece: PianoRoll, target: Path, note: str, markers: Markers) -> None:
        piece.to_midi(target, note, markers=markers, hands=cfg.hands)

    return Assignment(None, length, model.layout(meters, padded), _allowed(cfg, model, padded), None, meters, write)


def _within(cfg: GenerateConfig, roll: PianoRoll) -> Plane | None:
    """The cells (128, T) that ``--compose_bars`` and ``--mask`` name; None without them."""
    parts = [score_bars(cfg.compose_bars, roll)] if cfg.compose_bars else []
    parts += [parse_rectangle(text, roll) for text in cfg.mask]
    return np.any(parts, axis=0) if parts else None


def _continuation(cfg: GenerateConfig, roll: PianoRoll, model: ModelConfig, path: Path) -> tuple[int, Task]:
    """The step at which a given beginning ends, and the task to continue from there."""
    cut, asked = roll.width, f"--condition_midi {path}"
    if cfg.condition_bars is not None:
        cut, asked = bars_to_steps(roll, cfg.condition_bars), f"--condition_bars {cfg.condition_bars}"
    elif cfg.condition_length is not None:
        cut, asked = cfg.condition_length, f"--condition_length {cfg.condition_length}"
    tempo = [tempo for step, tempo in roll.tempos if step < max(cut, 1)][-1]
    meter = [(beats, unit) for step, beats, unit in roll.time_signatures if step <= cut][-1]
    length = _length(cfg, tempo, model, *meter)
    if length is None and cfg.form is not None:
        length = steps_to_form(cfg.form, roll.time_signatures, cut, model.steps_per_quarter)
        if length < 1:
            raise UserError(f"--form {cfg.form}: ends within the given beginning, {asked}")
    return cut, continuation(roll, cut, length or model.crop_length, model.column, asked)


def voice_of(events: MidiEvents, voice: str, path: Path, model: ModelConfig, may_rest: bool = False) -> PianoRoll:
    """The notes of the voice that ``--voice`` names, as a roll; it may have none where it ``may_rest``.

    Raises:
        UserError: the file has no such voice.
    """
    roll = PianoRoll.from_events(events, model.velocity_bins)
    notes = roll.notes()
    voices = events.voices_of(notes)
    if voice == "melody":
        mine = voices == MELODY if (voices == MELODY).any() else melody_beside_chords(notes)
    else:
        mine = hands(notes, voices) == VOICES[voice]
    if not mine.any() and not (may_rest and voice == "melody"):
        raise UserError(f"--voice {voice}: {path} has no note of it")
    return replace(roll, tokens=tokens_from_notes(notes[mine], 0, roll.width))


def meant_signature(path: Path, events: MidiEvents) -> tuple[int, bool] | None:
    """The key signature of the input; None where it has none, or C major, which many programs write by default.

    The studio writes a signature only if a key was chosen, so its C major is meant.  Its files end with the marker of
    this program, and no track in them is one that was composed into the file of another program.
    """
    if events.key != (0, False):
        return events.key
    file = read_file(path)
    own = end_mark(file) is not None
    own = own and not any(file.name(track).startswith(TRACK_NAME) for track in range(len(file.columns)))
    return events.key if own else None


def remarks(events: MidiEvents, mode: str) -> list[str]:
    """Remarks about the given music, one line each."""
    lines = list(events.remarks)
    if events.drums:
        kept = "the continuation has none" if mode == "conditional" else "they stay as they are"
        lines.append(f"the model does not hear drums ({events.drums} notes); {kept}")
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
    return " ".join(f"--{name} {as_typed(getattr(cfg, name))}" for name in names)
