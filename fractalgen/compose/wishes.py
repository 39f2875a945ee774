"""Labels of the pieces, from the flags, the given music or at random."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fractalgen.compose.assignment import Assignment
from fractalgen.config import GenerateConfig, ModelConfig
from fractalgen.data.attributes import random_key_labels
from fractalgen.errors import UserError
from fractalgen.music.bars import main_meter, meter_label
from fractalgen.music.chords import QUALITIES, Chord
from fractalgen.music.keys import guess_key
from fractalgen.music.labels import NAMES, encode_all, signature_key, spell_key
from fractalgen.music.progression import parse_progression
from fractalgen.music.tokens import PITCHES

KEY_LEAD = 0.4  # of a guessed key over the next, times the bars of four quarters in which something sounds


def choose_labels(cfg: GenerateConfig, config: ModelConfig, work: Assignment, seed: int) -> npt.NDArray[np.int64]:
    """The labels of each piece, (num_samples, number of attributes).

    Without ``--key``, the key is that of ``--scale`` or of the given music.  Without given music it is random for each
    piece: with a key from the start, a model strays far less.

    Raises:
        UserError: a label that the model does not know, or guidance without any.
    """
    asked: dict[str, str | None] = {name: getattr(cfg, name) for name in NAMES if name != "tempo"}
    if cfg.key == "free":
        asked["key"] = None
    if "meter" in config.label_names and cfg.meter is None:
        meter = meter_label(main_meter(work.meters, work.width))
        asked["meter"] = meter if any(meter in attribute.values for attribute in config.attributes) else None
    open_key = cfg.key is None and "key" in config.label_names
    if open_key:
        asked["key"] = (spell_key(cfg.scale) if cfg.scale else None) or given_key(work, config.steps_per_quarter)
        asked["key"] = asked["key"] or (key_of_chords(cfg.chords) if cfg.chords else None)
    labels = np.tile(np.array(encode_all(config.attributes, asked, cfg.tempo), np.int64), (cfg.num_samples, 1))
    if open_key and not (cfg.scale or asked["key"]) and work.template is None:
        labels += random_key_labels(config.attributes, cfg.num_samples, seed)
    if cfg.cfg != 1 and not labels.any() and not config.plan_width:
        raise UserError(f"--cfg {cfg.cfg}: guidance needs a label, such as --key or --density")
    return labels


def key_of_chords(chords: str) -> str | None:
    """The key in which a progression fits best; its first and its last bar count twice."""
    bars = parse_progression(chords)
    codes = [code for bar in (bars[0], *bars, bars[-1]) for code in bar]
    tokens = np.zeros((PITCHES, len(codes)), np.uint8)
    for step, chord in enumerate(map(Chord.of, codes)):
        if chord is not None:
            notes = list(QUALITIES.values())[chord.quality]
            tokens[[60 + (chord.root + semitone) % 12 for semitone in notes], step] = 1
            tokens[48 + chord.root, step] = 1
    return guess_key(tokens)[0]


def key_source(cfg: GenerateConfig, work: Assignment) -> str:
    """The source of a key that no flag names, in words."""
    if cfg.scale and spell_key(cfg.scale):
        return "of --scale"
    if work.task is None and cfg.chords:
        return "estimated from --chords"
    if work.task is None:
        return "random"
    return "estimated from the given music" if work.signature is None else "by the file's key signature"


def given_key(work: Assignment, steps_per_quarter: int) -> str | None:
    """The key of the given music: from its key signature, or estimated if the estimate is certain enough, or None.

    The lead that a guess needs falls with the bars it rests on; so guesses are right in 77 to 84 % of excerpts of two
    to eight bars (validation songs of POP909).
    """
    known = work.known()
    if known is None:
        return None
    if work.signature is not None:
        return signature_key(work.signature)
    tokens = known.clip(0)
    key, lead = guess_key(tokens)
    steps = int(np.count_nonzero(tokens.any(0)))
    return key if lead * steps >= KEY_LEAD * 4 * steps_per_quarter else None
