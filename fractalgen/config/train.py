"""Settings of ``fractalgen train``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fractalgen.config.fields import ConfigError, Generator, Groups, Precision, ScanOrder, setting
from fractalgen.config.model import LevelConfig, ModelConfig, patch_widths, steps_of
from fractalgen.music.labels import AttributeName

PER_LEVEL = (
    *("patch_sizes", "embed_dims", "num_blocks", "num_heads", "generator_types"),
    *("context_pitches", "context_past", "context_future", "max_children"),
)
"""Fields with a value for each level."""


@dataclass(frozen=True)
class TrainConfig:
    """``fractalgen train``: data, architecture, optimisation and what is logged."""

    groups: ClassVar[Groups] = {
        "most used": (
            *("data", "output_dir", "resume", "init_from", "max_steps", "batch_size", "learning_rate"),
            *("val_check_interval_steps", "log_images_every_n_steps", "num_images_to_log"),
        ),
        "data": ("crop_length", "transpose_min", "transpose_max", "num_workers", "attributes"),
        "model": (
            *("generator_types", "scan_order", "patch_sizes", "embed_dims", "num_blocks", "num_heads"),
            *("context_pitches", "context_past", "context_future", "echoes", "plan_width"),
        ),
        "what is trained": ("plan_only", "reveal_share", "label_dropout", "dropout", "max_children"),
        "optimisation": (
            *("optimizer", "schedule", "warmup_steps", "cooldown_steps", "min_learning_rate"),
            *("weight_decay", "gradient_clip", "ema_decay", "accumulate_grad_batches", "seed"),
        ),
        "computation": ("precision", "activation_checkpointing", "devices", "num_nodes", "accelerator", "strategy"),
        "validation and logs": ("val_crops", "logger", "log_every_n_steps", "keep_checkpoints"),
    }

    # data
    data: str = setting("chorales", "packed corpus made by `fractalgen prepare`, or `chorales` (included)")
    crop_length: int = setting(256, "width of a training roll in sixteenths, on finer grids, too")
    transpose_min: int = setting(-6, "lowest random transposition of a training crop, in semitones")
    transpose_max: int = setting(6, "highest random transposition of a training crop, in semitones")
    num_workers: int = setting(1, "processes that load data", low=0)
    attributes: tuple[Literal["all", AttributeName], ...] | None = setting(
        None,
        "labels to learn, by which music can be asked for later: key, density, polyphony, register, velocity, tempo,"
        " style, or all that differ between the training songs (default: none)",
    )

    # model
    generator_types: tuple[Generator, ...] = setting(("ar", "ar", "ar", "ar"), "generator of each level, L0 to L3")
    scan_order: ScanOrder = setting("column_major", "order of the patches in AR levels")
    patch_sizes: tuple[int, ...] = setting(
        (128, 16, 4, 1),
        "height of the regions of each level in pitches; they last as many sixteenths, the last one is a single cell",
    )
    embed_dims: tuple[int, ...] = setting((512, 256, 128, 64), "width of each level's transformer")
    num_blocks: tuple[int, ...] = setting((12, 3, 2, 1), "blocks of each level's transformer")
    num_heads: tuple[int, ...] = setting((8, 4, 2, 2), "attention heads of each level")
    context_pitches: tuple[int, ...] = setting(
        (0, 12, 2, 0),
        "pitches below and above a child patch that each level sees (the last number: above and below a cell, of the"
        " struck notes that its velocity attends to)",
    )
    context_past: tuple[int, ...] = setting((0, 32, 4, 0), "sixteenths before a child patch that each level sees")
    context_future: tuple[int, ...] | None = setting(
        None,
        "sixteenths after a child patch that each level sees (default: half the past where the level is MAR or"
        " reveal_share is not 0, else 0)",
    )
    echoes: tuple[int, ...] | None = setting(
        (1, 2, 4, 8),
        "long context: L1 and L2 see the same pitches this many first-level patches earlier (where L0 is MAR: also"
        " later); a patch is a bar of four quarters; none: no long context",
    )
    plan_width: int = setting(
        0, "width of the planner, which draws chords and form before the notes (0: a model without plans)", low=0
    )
    plan_only: bool = setting(
        False, "train the planner alone, many times faster; with --init_from, all other weights stay as they are"
    )
    reveal_share: float = setting(
        0.0,
        "share of training crops in which random cells are known, so that all levels learn to use given music",
        low=0,
        high=1,
    )
    label_dropout: float = setting(
        0.1,
        "share of training crops without labels; the other crops keep a random number of them (0: all crops keep all)",
        low=0,
        high=1,
    )
    dropout: float = setting(0.0, "dropout inside the transformers (0 to below 1)")
    max_children: tuple[int, ...] = setting(
        (0, 1024, 8192, 0),
        "maximum number of patches of each level that a training step visits, a random sample of all (0: all)",
    )

    # optimisation
    batch_size: int = setting(8, "crops per device and step", low=1)
    max_steps: int = setting(200_000, "optimiser steps", low=1)
    optimizer: Literal["muon", "adamw"] = setting(
        "muon", "muon: Muon for the matrices of the transformers, AdamW for all other parameters"
    )
    learning_rate: float = setting(6e-4, "peak learning rate", low=0)
    schedule: Literal["cosine", "constant"] = setting(
        "cosine", "learning rate after the warm-up: a cosine until the end of the run, or constant"
    )
    cooldown_steps: int = setting(
        0,
        "steps at the end in which a constant learning rate falls to the minimum (1 - sqrt); with --resume from a run"
        " without cool-down: a branch in a folder of its own that cools down at once and ends after these steps",
        low=0,
    )
    min_learning_rate: float = setting(0.0, "learning rate at the end of the schedule", low=0)
    warmup_steps: int = setting(200, "optimiser steps of linear warm-up", low=0)
    weight_decay: float = setting(0.05, "decoupled weight decay, on matrices only", low=0)
    gradient_clip: float = setting(1.0, "maximum norm of the gradient (0: no clipping)", low=0)
    ema_decay: float = setting(
        0.0,
        "validate, sample and save an exponential moving average of the weights with this decay, which is lower in the"
        " first steps (0: no average; below 1)",
    )
    accumulate_grad_batches: int = setting(1, "batches per optimiser step", low=1)
    precision: Precision = setting(
        "auto", "arithmetic: float32, bfloat16 autocast, or whichever is faster on the device"
    )
    activation_checkpointing: bool = setting(False, "use less memory and more time: recompute in the backward pass")
    seed: int = setting(0, "seed of initialisation, data order and masks", low=0)

    # run
    output_dir: str | None = setting(None, "run folder (default: outputs/fractalgen_<types joined by _>)")
    init_from: str | None = setting(
        None,
        "fine-tuning: model to start from, a shipped one by name, .ckpt or .safetensors, of the same widths;"
        " labels, reveal_share, more blocks, wider windows and echoes may be new",
    )
    resume: str | None = setting(
        None,
        "checkpoint (.ckpt) to continue, or a run folder: its newest complete checkpoint; auto: that of this run's own"
        " folder, or from the beginning if there is none (for jobs that are started again)",
    )
    devices: str = setting("auto", "devices of each machine, passed to the Lightning trainer; see docs/distributed.md")
    num_nodes: int = setting(1, "machines that train together", low=1)
    accelerator: str = setting("auto", "cpu, gpu ..., passed to the Lightning trainer")
    strategy: str = setting(
        "auto",
        "ddp: each device has all weights; fsdp: a part of them, needs --optimizer adamw; passed to the Lightning"
        " trainer",
    )
    logger: Literal["tensorboard", "csv", "wandb"] = setting(
        "tensorboard", "where figures and pictures go; wandb: Weights & Biases, a package of its own"
    )
    val_check_interval_steps: int = setting(2000, "optimiser steps between validations", low=1)
    val_crops: int = setting(
        64, "validation crops that are scored each time, evenly spread over the split (0: all)", low=0
    )
    log_every_n_steps: int = setting(10, "optimiser steps between logged training losses", low=1)
    log_images_every_n_steps: int = setting(
        5000, "draw samples when a validation falls on a multiple of this number of steps", low=1
    )
    num_images_to_log: int = setting(4, "samples that are generated, recorded and logged each time", low=0)
    keep_checkpoints: int = setting(3, "best checkpoints to keep besides last.ckpt (-1: all)", low=-1)

    def model_config(self, steps_per_quarter: int = 4, **overrides: Any) -> ModelConfig:
        """The typed model configuration described by the flat flags, which count time in sixteenths, for a grid."""

        def steps(sixteenths: int) -> int:
            return math.ceil(steps_of(sixteenths, steps_per_quarter))

        future_context = self.reveal_share > 0
        future = self.context_future
        if future is None:  # AR levels in column-major order know nothing that lies ahead, unless it is given
            pairs = zip(self.context_past, self.generator_types, strict=False)
            future = tuple(past // 2 if generator == "mar" or future_context else 0 for past, generator in pairs)
        for name in PER_LEVEL:
            count = len(future if name == "context_future" else getattr(self, name))
            if count != len(self.patch_sizes):
                raise ConfigError(f"--{name}: {count} values for the {len(self.patch_sizes)} levels of patch_sizes")
        levels = []
        for index, wide in enumerate(patch_widths(self.patch_sizes, steps_per_quarter)):
            patch = self.patch_sizes[index]
            level = LevelConfig(
                patch,
                self.embed_dims[index],
                self.num_blocks[index],
                self.num_heads[index],
                self.generator_types[index],
                (self.context_pitches[index], steps(self.context_past[index]), steps(future[index])),
                steps=0 if index == 0 or wide == patch else wide,
            )
            levels.append(level)
        echoes = self.echoes or ()
        if self.generator_types[0] == "mar" or future_context:  # there the future may be known as well
            echoes = (*echoes, *(-distance for distance in echoes))
        settings: dict[str, Any] = {
            "scan_order": self.scan_order,
            "crop_length": steps(self.crop_length),
            "steps_per_quarter": steps_per_quarter,
            "label_dropout": self.label_dropout,
            "dropout": self.dropout,
            "max_children": self.max_children,
            "echoes": echoes,
            "future_context": future_context,
            "bar_columns": True,
            "plan_width": self.plan_width,
        }
        return ModelConfig(tuple(levels), **{**settings, **overrides})

    @property
    def run_dir(self) -> str:
        """The run folder, with its default filled in."""
        return self.output_dir or "outputs/fractalgen_" + "_".join(self.generator_types)
