"""Settings of ``fractalgen generate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fractalgen.config.fields import DEFAULT_MODEL, Pedal, View, setting
from fractalgen.config.render import RenderConfig
from fractalgen.config.sampling import SamplingConfig


@dataclass(frozen=True)
class GenerateConfig(SamplingConfig, RenderConfig):
    """``fractalgen generate``: what to compose and what to write."""

    model: str | None = setting(None, f"a shipped model by name (default: {DEFAULT_MODEL})")
    checkpoint: str | None = setting(None, "a model of your own instead: .ckpt or .safetensors")
    mode: Literal["unconditional", "conditional", "inpainting", "accompany", "variation"] = setting(
        "unconditional",
        "compose from nothing; go on after a beginning; fill gaps; accompany a voice; compose parts of a piece anew",
    )
    num_samples: int = setting(1, "pieces to compose")
    quality: Literal["fast", "balanced", "best"] | None = setting(
        None,
        "models with MAR levels (pop909-mar): 4, 8 (the default) or 32 iterations at L0; replaces --num_iter_list",
        instead_of="num_iter_list",
    )
    # what is given
    condition_midi: str | None = setting(None, "conditional: the MIDI file to go on from")
    condition_length: int | None = setting(None, "conditional: its first time steps that are kept (default: all)")
    condition_bars: int | None = setting(None, "conditional: the same in bars")
    input_midi: str | None = setting(None, "inpainting, accompany, variation: the MIDI file")
    pedal: Pedal = setting(
        "follow", "music given: notes sound on while its sustaining pedal is down, or end with their key"
    )
    mask_start: int | None = setting(None, "inpainting: first time step to be composed anew")
    mask_end: int | None = setting(None, "inpainting: the step after the last one")
    mask: tuple[str, ...] = setting(
        (), "inpainting: rectangles, as time=64:192,pitch=C4:C6 or bars=4:8 (from 0, the end excluded)", repeat=True
    )
    compose_bars: tuple[str, ...] = setting(
        (), "inpainting, accompany, variation: bars to compose, as on a score: 5-8 12 (from 1, the last one included)"
    )
    voice: str = setting("highest", "accompany: the voice that is kept: highest, lowest, all, or track:N")
    side: Literal["below", "above"] = setting("below", "accompany: where to compose, seen from that voice")
    strength: float = setting(0.3, "variation: share of the patches that are composed anew")
    # how long
    target_width: int | None = setting(None, "length in time steps (default: the checkpoint's crop length)")
    bars: float | None = setting(None, "length in bars instead: of the music given, else of four quarters")
    seconds: float | None = setting(None, "length in seconds instead")
    generation_length: int | None = setting(None, "conditional: time steps to compose after the beginning")
    # what it is to be like, where the model was trained with such labels
    key: str | None = setting(
        None,
        "A minor, F# major ... (default: that of --scale or of the music given, where it is clear; from nothing drawn"
        " by lot; free: left open)",
    )
    density: str | None = setting(None, "notes a bar: a rank from 0 to 1 among the training music, or a number above 1")
    polyphony: str | None = setting(None, "notes at a time: a rank or a number")
    register: str | None = setting(None, "mean pitch: a rank or a number")
    velocity: str | None = setting(None, "mean velocity: a rank or a number")
    style: str | None = setting(None, "a style of the training music")
    # what may sound
    pitch_range: str | None = setting(None, "pitches that may be composed: 48:84 or C3:C6 (the end excluded)")
    scale: str | None = setting(None, "pitch classes that may be composed: A minor, D dorian, or C D E G A")
    silence: tuple[str, ...] = setting((), "rectangles that stay silent, written as for --mask", repeat=True)
    output_dir: str = setting("outputs/generated", "folder for MIDI, PNG and GIF")
    overwrite: bool = setting(
        False, "number the pieces from 0 on, whatever is in the folder (else: from the next number)"
    )
    like: str | None = setting(
        None, "a MIDI file that was composed: its seed, model and flags, so that it is made again; flags given here win"
    )
    sample: int | None = setting(None, "write only this one of the pieces, counted from 0")
    seed: int | None = setting(None, "same seed, same bytes; default: a fresh one, printed")
    device: str = setting("auto", "cpu, cuda, cuda:1, mps, or auto")
    tempo: float | None = setting(
        None,
        "quarter notes a minute, asked of models that know it, and written into the MIDI unless music given has its own"
        " (default: 120)",
    )
    # A sampling default of its own: chosen on validation songs (docs/experiments.md); 0 is the model's distribution.
    filter_threshold: float = setting(0.01, "rule out choices less likely than this (0: none)")
    batch_size: int = setting(8, "samples generated together")
    save_gif: bool = setting(False, "write the process GIF")
    save_mp4: bool = setting(False, "write the process as MP4 too")
    save_trace: bool = setting(False, "write the trace (.npz), to be rendered later")
    save_frames: bool = setting(False, "write every frame as a numbered PNG")
    save_html: bool = setting(False, "write a page that plays the process and the music in any browser")
    save_wav: bool = setting(False, "write the sound")
    soundfont: str | None = setting(None, "sound: a .sf2 or .sf3 file (default: a simple voice of its own)")
    gif_view: View = setting("process", "what the animations show, see `fractalgen render --help`")
    gif_samples: str = setting("first", "which samples get a GIF, MP4 and frames: first, all or a number (pages: all)")
    record_interval: int = setting(0, "AR patches between two frames (0: an eighth of the sequence)")
