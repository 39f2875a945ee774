"""Which flags of ``fractalgen generate`` go together, checked before anything is read."""

from __future__ import annotations

import math
from typing import get_args

from fractalgen.config import GenerateConfig
from fractalgen.config.values import as_typed
from fractalgen.errors import UserError
from fractalgen.music.bars import parse_meter
from fractalgen.music.labels import KEYS, spell_key
from fractalgen.music.planning import form_bars
from fractalgen.music.progression import parse_progression
from fractalgen.music.selection import parse_pitch_classes
from fractalgen.music.tasks import Voice
from fractalgen.music.voices import LEFT, MELODY, RIGHT

MODES: dict[str, tuple[str, ...]] = {
    "unconditional": (),
    "conditional": ("condition_midi", "condition_length", "condition_bars", "generation_length"),
    "inpainting": ("input_midi", "mask_start", "mask_end", "mask", "compose_bars"),
    "accompany": ("input_midi", "voice", "side", "mask", "compose_bars", "lead_sheet"),
    "variation": ("input_midi", "strength", "mask", "compose_bars"),
}
"""The flags that belong to each mode."""

VOICES = {"melody": MELODY, "right": RIGHT, "left": LEFT}
"""Voices that are found by the names of tracks, or by a rule: see :mod:`fractalgen.music.voices`."""


def check_mode(cfg: GenerateConfig) -> None:
    """Refuse flags that do not fit the mode or each other, before anything is read (UserError)."""
    defaults = GenerateConfig()
    for mode, names in MODES.items():
        for name in names:
            value = getattr(cfg, name)
            if mode != cfg.mode and name not in MODES[cfg.mode] and value != getattr(defaults, name):
                modes = " or ".join(other for other, flags in MODES.items() if name in flags)
                raise UserError(f"--{name} {as_typed(value)}: belongs to --mode {modes}, this is --mode {cfg.mode}")
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
    if cfg.meter is not None:
        parse_meter(cfg.meter)
        if cfg.mode != "unconditional":
            raise UserError(f"--meter {cfg.meter}: in --mode {cfg.mode} the given music sets the meter")
    if cfg.form is not None:
        bars = form_bars(cfg.form)
        if cfg.bars is not None and cfg.bars != bars and cfg.mode == "unconditional":
            raise UserError(f"--form {cfg.form}: {bars} bars in all, --bars {cfg.bars:g} asked for")
    if cfg.chords is not None:
        parse_progression(cfg.chords)
    voices = (*get_args(Voice), *VOICES)
    if cfg.voice is not None and cfg.voice not in voices and not cfg.voice.startswith("track:"):
        raise UserError(
            f"--voice {cfg.voice}: {', '.join(voices)}, or track:N (a number from 0, a name, or program:A-B)"
        )
