"""Settings of ``fractalgen train``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fractalgen.config.fields import ConfigError, Generator, Precision, ScanOrder, setting
from fractalgen.config.model import LevelConfig, ModelConfig
from fractalgen.music.labels import AttributeName


@dataclass(frozen=True)
class TrainConfig:
    """``fractalgen train``: data, architecture, optimisation and what is logged."""

    # data
    data: str = setting("chorales", "packed corpus made by `fractalgen prepare`, or `chorales` (embedded)")
    crop_length: int = setting(256, "width of a training roll in time steps")
    crop_align: Literal["bar", "beat"] = setting("bar", "where a random training crop may begin")
    transpose_min: int = setting(-6, "lowest random transposition of a training crop, in semitones")
    transpose_max: int = setting(6, "highest random transposition of a training crop, in semitones")
    num_workers: int = setting(1, "processes that load data")
    attributes: tuple[Literal["all", AttributeName], ...] | None = setting(
        None,
        "labels to learn, so that music can be asked for by them: key, density, polyphony, register, velocity, tempo,"
        " style, or all by which the training songs differ (default: none)",
    )

    # model
    generator_types: tuple[Generator, ...] = setting(("ar", "ar", "ar", "ar"), "generator of each level, L0 to L3")
    scan_order: ScanOrder = setting("column_major", "order of patches in AR levels")
    patch_sizes: tuple[int, ...] = setting((128, 16, 4, 1), "height of the region that each level owns")
    embed_dims: tuple[int, ...] = setting((512, 256, 128, 64), "width of each level's transformer")
    num_blocks: tuple[int, ...] = setting((12, 3, 2, 1), "blocks of each level's transformer")
    num_heads: tuple[int, ...] = setting((8, 4, 2, 2), "attention heads of each level")
    context_pitches: tuple[int, ...] = setting((0, 12, 2, 0), "pitches seen below and above a child patch, per level")
    context_past: tuple[int, ...] = setting((0, 32, 4, 0), "steps seen before a child patch, per level")
    context_future: tuple[int, ...] | None = setting(
        None,
        "steps seen after a child patch, per level (default: half the past where the level is MAR or reveal_share is"
        " not 0, else 0)",
    )
    echoes: tuple[int, ...] | None = setting(
        (1, 2, 4, 8),
        "L1 and L2 see the same pitches so many first-level patches earlier (where L0 is MAR: and later);"
        " a patch is a bar of four quarters; none: no echoes",
    )
    reveal_share: float = setting(
        0.0, "share of training crops in which random cells are known, so that all levels learn to listen to them"
    )
    label_dropout: float = setting(
        0.1, "share of training crops without labels (the others keep some of them, a random number; 0: all of them)"
    )
    dropout: float = setting(0.0, "dropout inside the transformers")
    max_children: tuple[int, ...] = setting(
        (0, 1024, 8192, 0), "most patches of each level visited in one training step (0: all); sampled, unbiased"
    )

    # optimisation
    batch_size: int = setting(8, "crops per device and step")
    max_steps: int = setting(200_000, "optimiser steps")
    optimizer: Literal["muon", "adamw"] = setting("muon", "muon: Muon inside the transformers, AdamW for the rest")
    learning_rate: float = setting(6e-4, "peak learning rate")
    schedule: Literal["cosine", "constant"] = setting(
        "cosine", "learning rate after the warm-up: a cosine down to the end of the run, or constant"
    )
    cooldown_steps: int = setting(
        0,
        "steps at the end in which a constant learning rate falls to the minimum (1 - sqrt); with --resume from a run"
        " without: a branch that begins to cool at once and ends after so many steps, in a folder of its own",
    )
    min_learning_rate: float = setting(0.0, "learning rate at the end of the schedule")
    warmup_steps: int = setting(200, "optimiser steps of linear warm-up")
    weight_decay: float = setting(0.05, "decoupled weight decay, on matrices only")
    gradient_clip: float = setting(1.0, "largest norm of the gradient (0: no clipping)")
    ema_decay: float = setting(
        0.0,
        "validate, draw and save a moving average of the weights, which keeps this share of itself at each step, less"
        " at first (0: none); the weights that are trained go on beside it",
    )
    accumulate_grad_batches: int = setting(1, "batches per optimiser step")
    precision: Precision = setting(
        "auto", "arithmetic: float32, bfloat16 autocast, or the one that is faster on the device"
    )
    activation_checkpointing: bool = setting(False, "less memory, slower: recompute in the backward pass")
    seed: int = setting(0, "seed of initialisation, data order and masks")

    # run
    output_dir: str | None = setting(None, "run folder (default: outputs/fractalgen_<types joined by _>)")
    init_from: str | None = setting(
        None,
        "model to start from instead of random weights (fine-tuning): a shipped one by name, .ckpt or .safetensors of"
        " the same widths and depths; labels, reveal_share, wider windows and echoes may be new",
    )
    resume: str | None = setting(
        None, "checkpoint (.ckpt) to go on from, or a run's folder: the newest in it that is whole"
    )
    devices: str = setting("auto", "passed to the Lightning trainer")
    accelerator: str = setting("auto", "passed to the Lightning trainer")
    strategy: str = setting("auto", "passed to the Lightning trainer")
    val_check_interval_steps: int = setting(2000, "optimiser steps between validations")
    val_crops: int = setting(64, "validation crops scored each time, evenly spread over the split (0: all)")
    log_every_n_steps: int = setting(10, "optimiser steps between logged training losses")
    log_images_every_n_steps: int = setting(5000, "pictures when a validation falls on a multiple of this step")
    num_images_to_log: int = setting(4, "samples generated, recorded and logged at such a validation")
    keep_checkpoints: int = setting(3, "best checkpoints kept besides last.ckpt (-1: all)")

    def model_config(self, **overrides: Any) -> ModelConfig:
        """The typed model configuration described by the flat flags."""
        future_context = self.reveal_share > 0
        future = self.context_future
        if future is None:  # AR levels in column-major order know nothing that lies ahead, unless it is given
            pairs = zip(self.context_past, self.generator_types, strict=False)
            future = tuple(past // 2 if generator == "mar" or future_context else 0 for past, generator in pairs)
        per_level = {
            "patch_sizes": self.patch_sizes,
            "embed_dims": self.embed_dims,
            "num_blocks": self.num_blocks,
            "num_heads": self.num_heads,
            "generator_types": self.generator_types,
            "context_pitches": self.context_pitches,
            "context_past": self.context_past,
            "context_future": future,
            "max_children": self.max_children,
        }
        for name, values in per_level.items():
            if len(values) != len(self.patch_sizes):
                raise ConfigError(
                    f"--{name}: {len(values)} values for the {len(self.patch_sizes)} levels of patch_sizes"
                )
        levels = tuple(
            LevelConfig(patch, width, depth, heads, generator, context)
            for patch, width, depth, heads, generator, context in zip(
                self.patch_sizes,
                self.embed_dims,
                self.num_blocks,
                self.num_heads,
                self.generator_types,
                zip(self.context_pitches, self.context_past, future, strict=True),
                strict=True,
            )
        )
        ahead = self.generator_types[0] == "mar" or future_context  # there the future may be known as well
        echoes = self.echoes or ()
        echoes = (*echoes, *(-distance for distance in echoes if ahead))
        settings = {
            "scan_order": self.scan_order,
            "crop_length": self.crop_length,
            "label_dropout": self.label_dropout,
            "dropout": self.dropout,
            "max_children": tuple(self.max_children),
            "echoes": echoes,
            "future_context": future_context,
        }
        return ModelConfig(levels, **{**settings, **overrides})

    @property
    def run_dir(self) -> str:
        """The run folder, with its default filled in."""
        return self.output_dir or "outputs/fractalgen_" + "_".join(self.generator_types)
