"""The recipe of a piece: its seed, model and flags, as a text event in its MIDI file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from fractalgen.config import GenerateConfig, RenderConfig
from fractalgen.errors import UserError
from fractalgen.music.midi_events import read_file
from fractalgen.music.midi_parser import decode

PREFIX = "FractalGen recipe "
# What says where files go and how they are drawn, not what is composed.
APART = {item.name for item in dataclasses.fields(RenderConfig)} | {
    *("output_dir", "overwrite", "resume", "scheduler", "like", "device", "gif_view", "gif_samples"),
    *("save_gif", "save_mp4", "save_trace", "save_frames", "save_html", "save_wav", "save_musicxml"),
}


def write_recipe(cfg: GenerateConfig, seed: int, sample: int, checkpoint: str) -> str:
    """The text of a piece: number ``sample`` (from 0) of what ``cfg`` and ``seed`` compose with that checkpoint."""
    flags = {
        item.name: getattr(cfg, item.name)
        for item in dataclasses.fields(cfg)
        if item.name not in APART and getattr(cfg, item.name) != item.default
    }
    return PREFIX + json.dumps({**flags, "seed": seed, "sample": sample, "made_by": checkpoint}, sort_keys=True)


def read_recipe(path: str) -> dict[str, Any]:
    """The flags in a file that ``fractalgen generate`` wrote, ``seed`` and ``sample`` among them, and ``made_by``.

    Raises:
        UserError: no such file, or no recipe in it.
    """
    texts = [decode(content) for _, content in read_file(Path(path)).meta(0x01)]
    for text in reversed(texts):  # a piece that was made of another holds both recipes
        if text.startswith(PREFIX):
            try:
                recipe = json.loads(text.removeprefix(PREFIX))
            except (ValueError, RecursionError):
                continue
            if isinstance(recipe, dict):  # a file of a stranger does not say where files go
                flags = {name: value for name, value in recipe.items() if name not in APART}
                return {"best_of": 1} | flags  # before there were critics, the first candidate was kept
    raise UserError(f"--like {path}: no recipe in it; only pieces composed by `fractalgen generate` hold one")
