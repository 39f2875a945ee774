"""Every setting of FractalGen and its default: the only place where defaults live.

The command line is generated from these dataclasses (one flag per field, the same flat name) and the resolved
values travel inside every checkpoint.  Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

from fractalgen.errors import UserError, quoted, shown
from fractalgen.vocabulary import Attribute, AttributeName

Generator = Literal["ar", "mar"]
ScanOrder = Literal["column_major", "row_major"]
CfgSchedule = Literal["constant", "linear"]
MarOrder = Literal["random", "scan"]
Pedal = Literal["follow", "ignore"]
Precision = Literal["auto", "32", "bf16"]
View = Literal["process", "hierarchical", "levels", "density"]

MAX_STEPS = 65_535  # 4,095 bars of 4/4, over two hours: what is longer is a damaged file
MOST_LEVELS, MOST_BLOCKS, WIDEST, FARTHEST = 8, 256, 16_384, 4_096
"""Bounds of a model: what lies beyond them is a mistake, or a damaged checkpoint."""

DEFAULT_MODEL = "pop909-ar"
"""Name of the shipped model (fractalgen/assets/models/NAME.safetensors) that is used when none is named."""


def setting(default: Any, help: str, repeat: bool = False, instead_of: str = "") -> Any:
    """A dataclass field with its ``--help``; its flag may ``repeat``, or stand ``instead_of`` that of another field."""
    return field(default=default, metadata={"help": help, "repeat": repeat, "instead_of": instead_of})


class ConfigError(UserError):
    """A setting that cannot work; the message names the flag and both values."""


@dataclass(frozen=True)
class LevelConfig:
    """One level of the fractal: it owns regions ``patch`` pitches high and splits them into the next level's patches.

    ``context`` is how far around a child patch the level looks at known cells: (pitches below and above,
    steps before, steps after); zeros switch the look-around off.
    """

    patch: int
    width: int
    depth: int
    heads: int
    generator: Generator
    context: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class ModelConfig:
    """Everything a checkpoint needs to rebuild the network and read its tokens."""

    levels: tuple[LevelConfig, ...]
    scan_order: ScanOrder = "column_major"
    crop_length: int = 256
    velocity_bins: int = 32
    steps_per_quarter: int = 4
    attributes: tuple[Attribute, ...] = ()
    label_dropout: float = 0.1
    dropout: float = 0.0
    max_children: tuple[int, ...] = ()
    echoes: tuple[int, ...] = ()
    listens: bool = False  # AR levels see known cells ahead of them too, as MAR levels always do

    def __post_init__(self) -> None:
        self._check_types()
        if not 2 <= len(self.levels) <= MOST_LEVELS:
            raise ConfigError(f"patch_sizes: 2 to {MOST_LEVELS} levels, not {len(self.levels)}")
        if len({attribute.name for attribute in self.attributes}) < len(self.attributes):
            raise ConfigError("attributes: one of them stands there twice")
        for name, highest in (("velocity_bins", 64), ("steps_per_quarter", 480)):
            if not 1 <= getattr(self, name) <= highest:
                raise ConfigError(f"{name}: 1 to {highest}, not {getattr(self, name)}")
        for outer, inner in itertools.pairwise(self.levels):
            if (
                inner.patch < 1
                or outer.patch % inner.patch
                or (outer.patch == inner.patch and outer is not self.levels[0])
            ):
                raise ConfigError(f"patch_sizes: {outer.patch} cannot be split into patches of {inner.patch}")
        if min(self.max_children, default=0) < 0:
            raise ConfigError(f"max_children: 0 or more, not {min(self.max_children)}")
        if self.max_children and len(self.max_children) != len(self.levels):
            raise ConfigError(f"max_children: {len(self.max_children)} numbers for {len(self.levels)} levels")
        if any(self.levels[-1].context) or (self.max_children and self.max_children[0]):
            raise ConfigError("the last context_* (a single cell) and the first max_children (the roll) must be 0")
        if not 0 <= self.dropout < 1 or not 0 <= self.label_dropout <= 1:
            raise ConfigError(f"dropout, label_dropout: shares, not {self.dropout} and {self.label_dropout}")
        if self.levels[-1].patch != 1:
            raise ConfigError(f"patch_sizes: the last level must be 1 (a single cell), not {self.levels[-1].patch}")
        for level in self.levels:
            if level.heads < 1 or not 1 <= level.depth <= MOST_BLOCKS:
                raise ConfigError(
                    f"num_heads at least 1, num_blocks 1 to {MOST_BLOCKS}, not {level.heads} and {level.depth}"
                )
            if level.width % 2 or not 2 <= level.width <= WIDEST:
                raise ConfigError(f"embed_dims: even numbers from 2 to {WIDEST}, not {level.width}")
            if len(level.context) != 3 or not 0 <= min(level.context) <= max(level.context) <= FARTHEST:
                raise ConfigError(
                    f"context_pitches, context_past, context_future: 0 to {FARTHEST}, not {level.context}"
                )
            if level.width % level.heads:
                raise ConfigError(f"embed_dims: {level.width} is not divisible by num_heads {level.heads}")
            if level.generator not in ("ar", "mar"):
                raise ConfigError(f"generator_types: 'ar' or 'mar', not {quoted(level.generator)}")
        if any(not 0 < abs(distance) <= FARTHEST for distance in self.echoes):
            raise ConfigError(f"echoes: 1 to {FARTHEST} patches away, not {shown(' '.join(map(str, self.echoes)))}")
        if len(set(self.echoes)) < len(self.echoes):
            raise ConfigError(f"echoes: different distances, not {shown(' '.join(map(str, self.echoes)))}")
        if self.levels[0].generator == "ar" and not self.listens and any(distance < 0 for distance in self.echoes):
            raise ConfigError(f"echoes: an AR first level has no later patches to show, {min(self.echoes)} is negative")
        if self.scan_order not in ("column_major", "row_major"):
            raise ConfigError(f"scan_order: 'column_major' or 'row_major', not {quoted(self.scan_order)}")
        self.check_width(self.crop_length, "crop_length")

    def _check_types(self) -> None:
        """Refuse what is no number, which only a damaged checkpoint holds."""
        counts: dict[str, tuple[Any, ...]] = {
            name: (getattr(self, name),) for name in ("crop_length", "velocity_bins", "steps_per_quarter")
        }
        counts |= {"max_children": self.max_children, "echoes": self.echoes}
        for name in ("patch", "width", "depth", "heads"):
            counts[name] = tuple(getattr(level, name) for level in self.levels)
        counts["context"] = tuple(number for level in self.levels for number in level.context)
        for name, numbers in counts.items():
            if odd := [number for number in numbers if type(number) is not int]:
                raise ConfigError(f"{name}: whole numbers, not {shown(odd[0])}")
        for name in ("dropout", "label_dropout"):
            if type(getattr(self, name)) not in (int, float):
                raise ConfigError(f"{name}: a number, not {shown(getattr(self, name))}")
        if type(self.listens) is not bool:
            raise ConfigError(f"listens: true or false, not {shown(self.listens)}")

    @property
    def pitches(self) -> int:
        """Height of the roll."""
        return self.levels[0].patch

    @property
    def label_sizes(self) -> tuple[int, ...]:
        """Number of labels of each attribute, 0 (unset) included."""
        return tuple(attribute.size for attribute in self.attributes)

    @property
    def vocabulary(self) -> int:
        """Number of cell tokens: silence, hold and one onset per velocity bin."""
        return 2 + self.velocity_bins

    def check_width(self, width: int, flag: str = "target_width") -> None:
        """Refuse a roll width that the first level cannot split."""
        patch = self.levels[1].patch
        if width <= 0 or width % patch or width > MAX_STEPS:
            limit = f", at most {MAX_STEPS:,}" if width > MAX_STEPS else ""
            raise ConfigError(
                f"--{flag} {shown(width)}: the width must be a positive multiple of the patch size {patch}{limit}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Inverse of :meth:`to_dict`; tuples may have become lists on the way."""
        data = dict(data)
        data["levels"] = tuple(LevelConfig(**{**level, "context": tuple(level["context"])}) for level in data["levels"])
        data.pop("label_sizes", None)  # written, always empty, before there were attributes
        data["attributes"] = tuple(
            attribute if isinstance(attribute, Attribute) else Attribute.from_dict(attribute)
            for attribute in data.get("attributes", ())
        )
        for name in ("max_children", "echoes"):
            data[name] = tuple(data.get(name, ()))
        return cls(**data)

    def fit_iterations(self, num_iter_list: tuple[int, ...]) -> tuple[int, ...]:
        """``num_iter_list`` with as many numbers as there are levels: cut, or filled up with 1."""
        return (*num_iter_list, *[1] * len(self.levels))[: len(self.levels)]


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
        listens = self.reveal_share > 0
        future = self.context_future
        if future is None:  # AR levels in column-major order know nothing that lies ahead, unless it is given
            pairs = zip(self.context_past, self.generator_types, strict=False)
            future = tuple(past // 2 if generator == "mar" or listens else 0 for past, generator in pairs)
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
        ahead = self.generator_types[0] == "mar" or listens  # there the future may be known as well
        echoes = self.echoes or ()
        echoes = (*echoes, *(-distance for distance in echoes if ahead))
        settings = {
            "scan_order": self.scan_order,
            "crop_length": self.crop_length,
            "label_dropout": self.label_dropout,
            "dropout": self.dropout,
            "max_children": tuple(self.max_children),
            "echoes": echoes,
            "listens": listens,
        }
        return ModelConfig(levels, **{**settings, **overrides})

    @property
    def run_dir(self) -> str:
        """The run folder, with its default filled in."""
        return self.output_dir or "outputs/fractalgen_" + "_".join(self.generator_types)


@dataclass(frozen=True)
class SamplingConfig:
    """How a roll is drawn from the model."""

    num_iter_list: tuple[int, ...] = setting(
        (8, 4, 2, 1), "iterations of each MAR level, L0 to L3 (and frames of each level in the hierarchical view)"
    )
    temperature: float | tuple[float, ...] = setting(
        1.0, "divides the logits; below 1 safer, above 1 bolder: one number, or one per level, L0 to L3"
    )
    cfg: float = setting(1.0, "classifier-free guidance scale: uncond + cfg * (cond - uncond)")
    cfg_schedule: CfgSchedule = setting("constant", "guidance: constant, or growing linearly over a level's steps")
    filter_threshold: float = setting(0.0, "rule out choices less likely than this (0: none)")
    batch_generate_size: int = setting(64, "patches per sample that a MAR iteration generates together")
    mar_order: MarOrder = setting(
        "random", "MAR levels: patches in a random order, or in scan order, so that music grows from left to right"
    )
    max_polyphony: int = setting(0, "most notes that may sound together (0: no limit)")
    threads: int = setting(
        1, "processor threads; two gain a few percent at best, and wait for each other where others use the processor"
    )
    candidates: int = setting(
        8, "where known music lies ahead of a model that cannot listen to it: candidates drawn, of which one is kept"
    )

    def __post_init__(self) -> None:
        temperatures = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        if not temperatures or not all(0.01 <= value <= 100 for value in temperatures):
            raise ConfigError(f"--temperature {shown(' '.join(map(str, temperatures)))}: must be from 0.01 to 100")
        for name, low, high in (
            ("cfg", 0, 1000),
            ("filter_threshold", 0, 1),
            ("batch_generate_size", 1, 1_000_000),
            ("max_polyphony", 0, 128),
            ("candidates", 1, 1000),
            ("threads", 1, 1024),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"--{name} {getattr(self, name)}: must be from {low} to {high}")
        # the default number of iterations serves any number of levels
        if len(temperatures) not in (1, len(self.num_iter_list)) and self.num_iter_list != SamplingConfig.num_iter_list:
            raise ConfigError(
                f"--temperature: {len(temperatures)} numbers for {len(self.num_iter_list)} levels, give one or one each"
            )
        if self.cfg_schedule not in ("constant", "linear"):
            raise ConfigError(f"--cfg_schedule {self.cfg_schedule}: must be constant or linear")
        if self.mar_order not in ("random", "scan"):
            raise ConfigError(f"--mar_order {self.mar_order}: must be random or scan")

    def level_temperature(self, level: int) -> float:
        """The temperature of a level, 0 being the first."""
        if not isinstance(self.temperature, tuple):
            return self.temperature
        return self.temperature[level if len(self.temperature) > 1 else 0]


@dataclass(frozen=True)
class RenderConfig:
    """How rolls and their making are drawn."""

    gif_fps: float = setting(2.0, "frames a second")
    gif_max_frames: int = setting(0, "at most this many frames (0: all recorded)")
    gif_scale: int = setting(4, "pixels per cell")
    gif_cmap: str = setting("viridis", "any matplotlib colour map, or velocity")
    gif_font_size: int = setting(14, "label size in pixels")
    gif_theme: Literal["dark", "light"] = setting("dark", "light: a colour map turned round, on white")
    gif_background: str | None = setting(None, "colour behind text and keyboard (default: black, or white if light)")
    gif_title: str | None = setting(None, "a title above everything")
    no_gif_labels: bool = setting(False, "leave the label strip out")
    gif_steps: bool = setting(False, "add the number of the step to the label")
    gif_elapsed: bool = setting(False, "add the elapsed time to the label")
    gif_stats: bool = setting(False, "add note statistics to the label: notes, notes a bar, pitch range")
    gif_progress_bar: bool = setting(False, "draw a progress bar under the roll")
    gif_keyboard: bool = setting(False, "draw a piano keyboard at the left")
    gif_grid: bool = setting(False, "draw bar lines with their numbers and the names of the Cs")
    gif_color_bar: bool = setting(False, "draw the scale of the colours at the right")


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


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SamplingConfig):
    """``fractalgen evaluate``: the likelihood of real music, and how close generated music comes to it."""

    data: str = field(metadata={"help": "packed corpus made by `fractalgen prepare`, or `chorales` (embedded)"})
    model: str | None = setting(None, f"a shipped model by name (default: {DEFAULT_MODEL})")
    checkpoint: str | None = setting(None, "a model of your own instead: .ckpt or .safetensors")
    split: Literal["test", "valid", "train", "all"] | None = setting(
        None, "songs to evaluate (default: test, or all where the corpus has no test songs)"
    )
    limit: int = setting(0, "score at most so many crops, evenly spread (0: all)")
    stride: int = setting(
        0, "score whole songs by windows that move on by so many steps, the past being known (0: separate crops)"
    )
    scheduled: bool = setting(False, "MAR: score under num_iter_list and mar_order, not the any-order bound")
    num_samples: int = setting(0, "rolls to generate and compare with real ones (0: likelihood only)")
    json: str | None = setting(None, "file for all figures")
    report: str | None = setting(None, "HTML page with plots and examples")
    batch_size: int = setting(8, "crops or samples computed together")
    seed: int = setting(0, "seed of samples, orders and shuffled rolls")
    device: str = setting("auto", "cpu, cuda, cuda:1, mps, or auto")
    precision: Precision = setting(
        "auto", "arithmetic: float32, bfloat16 autocast, or the one that is faster on the device"
    )


@dataclass(frozen=True, kw_only=True)
class RenderCommandConfig(RenderConfig):
    """``fractalgen render``: draw a saved trace again, with other settings."""

    traces: tuple[str, ...] = field(metadata={"help": ".trace.npz files to draw, each into a file of its own"})
    view: View = setting(
        "process",
        "chronological; coarse to fine; the roll with the patches that are being filled beside it; or how sure the"
        " model was",
    )
    format: Literal["gif", "mp4", "webp", "apng", "png", "poster", "frames", "html"] = setting(
        "gif", "png: the last frame; poster: it and four stages; frames: numbered PNGs; html: a page that plays it"
    )
    side_by_side: bool = setting(False, "all traces in one animation, synchronised")
    silent: bool = setting(False, "mp4: without the music at the end")
    soundfont: str | None = setting(None, "mp4: a .sf2 or .sf3 file (default: a simple voice of its own)")
    out: str | None = setting(None, "file, or folder of frames, to write (default: beside the trace)")
    record_interval: int = setting(0, "AR patches between two frames (0: an eighth of the sequence)")


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig:
    """``fractalgen diagnose``: what is wrong with a piece or with the way it was composed."""

    files: tuple[str, ...] = field(metadata={"help": ".trace.npz or .mid files"})


@dataclass(frozen=True)
class PrepareConfig:
    """``fractalgen prepare``: a folder of MIDI files becomes one packed corpus."""

    data: str = setting("", "folder of MIDI files (searched in depth), one MIDI file, or a JSB chorales .json file")
    out: str = setting("corpus.safetensors", "packed corpus to write")
    splits: str | None = setting(None, "JSON file {train: [ids], valid: [ids], test: [ids]} (default: by a hash)")
    steps_per_quarter: int = setting(4, "time steps per quarter note")
    velocity_bins: int = setting(32, "velocity classes, 1 to 64")
    pedal: Pedal = setting("follow", "notes sound on while the sustaining pedal is down, or end with their key")
    allow_off_grid: bool = setting(False, "keep files whose notes do not sit on their own beats")
    max_grid_distance: float = setting(0.15, "mean distance of onsets to the grid that is still on it (random: 0.25)")
    keep_duplicates: bool = setting(False, "keep files whose notes equal those of another file")
    manifest: str | None = setting(
        None, "CSV or TSV file with the columns `file` and `style` (default: the style is the name of the sub-folder)"
    )
    restrike: bool = setting(False, "strike whatever sounds anew at every step: a sequence of chords without holds")
    licence: str = setting("unknown", "licence of the music, written into the corpus")
    report: str | None = setting(None, "file for the list of skipped files (tab separated: file, reason)")
    num_workers: int = setting(0, "processes that read files (0: one per core)")


@dataclass(frozen=True)
class ExportConfig:
    """``fractalgen export``: a training checkpoint becomes a small file to share."""

    checkpoint: str = setting("", "training checkpoint (.ckpt)")
    out: str = setting("model.safetensors", "file to write")
    precision: Literal["32", "bf16"] = setting("bf16", "numbers in the file: float32, or bfloat16 at half the size")
    corpus: str = setting("", "name of the corpus that the model was trained on, kept in the file")
    licence: str = setting("", "licence of that corpus, kept in the file")
