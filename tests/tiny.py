"""A corpus, configurations and samples that are small enough for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fractalgen import FractalGen
from fractalgen.checkpoint import save_pretrained
from fractalgen.config import ModelConfig, TrainConfig
from fractalgen.data.corpus import write_corpus
from fractalgen.data.song import Song
from fractalgen.model.level import FractalLevel
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.trace import Intermediates, Trace

WIDTH = 32


def tokens(seed: int, width: int = WIDTH, notes: int = 20) -> np.ndarray:
    """A roll (128, width) of random notes of two steps."""
    random = np.random.default_rng(seed)
    roll = np.zeros((128, width), np.uint8)
    for pitch, start in zip(random.integers(40, 80, notes), random.integers(0, width // 2, notes) * 2, strict=True):
        roll[pitch, start : start + 2] = random.integers(2, 34), 1
    return roll


def corpus(path: Path) -> Path:
    """Six songs of twelve bars; two of them for validation."""
    songs = [
        Song.from_roll(f"song {i}", PianoRoll(tokens(i, 192, 120), time_signatures=((0, 4, 4),))) for i in range(6)
    ]
    splits = {song.name: "valid" if i < 2 else "train" for i, song in enumerate(songs)}
    write_corpus(songs, splits, path)  # type: ignore[arg-type]
    return path


def train_config(folder: Path, **changes: Any) -> TrainConfig:
    """A run of five optimiser steps on :func:`corpus`, validated at 2, 4 and 5; pictures at 4."""
    settings: dict[str, Any] = {
        "data": str(folder / "corpus.safetensors"),
        "output_dir": str(folder / "run"),
        "crop_length": WIDTH,
        "embed_dims": (16, 16, 16, 16),
        "num_blocks": (1, 1, 1, 1),
        "num_heads": (2, 2, 2, 2),
        "context_pitches": (0, 2, 1, 0),
        "context_past": (0, 4, 1, 0),
        "batch_size": 2,
        "max_steps": 5,
        "warmup_steps": 2,
        "accumulate_grad_batches": 2,
        "val_check_interval_steps": 2,
        "val_crops": 3,
        "log_every_n_steps": 1,
        "log_images_every_n_steps": 4,
        "num_images_to_log": 2,
        "keep_checkpoints": -1,
        "num_workers": 0,
        "accelerator": "cpu",
        "devices": "1",
        "precision": "32",
    }
    return TrainConfig(**{**settings, **changes})


def model_config(folder: Path = Path(), **changes: Any) -> ModelConfig:
    """The model of :func:`train_config`."""
    return train_config(folder, **changes).model_config()


def random_model(config: ModelConfig, gate_bias: float = -2) -> FractalGen:
    """A random model that is nearly as sparse as music, so that few cells are drawn."""
    torch.manual_seed(0)
    model = FractalGen(config).eval()
    for level in model.modules():
        if isinstance(level, FractalLevel):
            torch.nn.init.constant_(level.gate.bias, gate_bias)
    return model


def save_model(path: Path, config: ModelConfig, gate_bias: float = -2, facts: dict[str, Any] | None = None) -> str:
    """Save a :func:`random_model`."""
    save_pretrained(random_model(config, gate_bias), path, facts)
    return str(path)


def trace(
    tokens: np.ndarray,
    patches: tuple[int, ...] = (128, 16, 4, 1),
    kind: str = "ar",
    order: str = "column_major",
    known: np.ndarray | None = None,
    moments: int = 0,
    **changes: Any,
) -> Trace:
    """A made-up record of a roll, as a sampler would leave it.

    ``moments``: steps of the first level (0: one for each patch); MAR levels take two in each iteration.
    """
    known = np.zeros(tokens.shape, bool) if known is None else known
    decided = np.full((len(patches), *tokens.shape), -1, np.int16)
    for level, size in enumerate(patches):
        high, wide = size, size if level else tokens.shape[1]
        child = patches[min(level + 1, len(patches) - 1)]
        rank: np.ndarray = np.arange((high // child) * (wide // child))
        rank = rank.reshape(wide // child, -1).T if order == "column_major" else rank.reshape(high // child, -1)
        regions = tokens.reshape(tokens.shape[0] // high, high, tokens.shape[1] // wide, wide)
        inside = np.tile(rank.repeat(child, 0).repeat(child, 1), (regions.shape[0], regions.shape[2]))
        sounds = regions.any(axis=(1, 3)).repeat(high, 0).repeat(wide, 1)
        decided[level] = np.where(sounds | (level == 0), inside, -1)
    count = int(decided[0].max()) + 1
    if moments:
        decided[0], count = decided[0].astype(int) * moments // count, moments
    number = np.arange(count)
    steps = (number, np.zeros(count)) if kind == "ar" else (number // 2, number % 2)
    fields: dict[str, Any] = {
        "tokens": tokens,
        "decided": np.where(known, np.int16(-1), decided),
        "steps": np.stack(steps, 1).astype(np.int16),
        "known": known,
        "generators": (kind,) * len(patches),
        "patch_sizes": patches,
        "scan_order": order,
        "num_iter_list": (8, 4, 2, 1)[: len(patches)],
        "seconds": np.linspace(0.1, 1.0, count, dtype=np.float32),
    }
    return Trace(**(fields | changes))


def intermediates(rolls: np.ndarray) -> Intermediates:
    """A made-up record of rolls (n, 128, T), composed in reading order."""
    return Intermediates([trace(roll, order="row_major") for roll in rolls])
