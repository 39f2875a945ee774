"""The architecture of a model, as stored in its checkpoint."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, get_args

from fractalgen.config.fields import FARTHEST, MOST_BLOCKS, MOST_LEVELS, WIDEST, ConfigError, Generator, ScanOrder
from fractalgen.errors import quoted, shown
from fractalgen.music import MAX_STEPS
from fractalgen.music.labels import Attribute

if TYPE_CHECKING:
    from fractalgen.music.bars import BarLayout
    from fractalgen.music.tokens import Meters

PLANNER_HEADS = 4
OLD_NAMES = {"future_context": "listens"}
"""Fields by the names that they have in older checkpoints."""


@dataclass(frozen=True)
class LevelConfig:
    """One level of the fractal: it owns regions ``patch`` pitches high and splits them into the next level's patches.

    ``context`` is how far around a child patch the level looks at known cells: (pitches below and above,
    steps before, steps after); zeros switch the look-around off.  ``steps`` is how many time steps the regions are wide
    (0: as many as they have pitches); the first level's are as wide as the roll, whatever it says.
    """

    patch: int
    width: int
    depth: int
    heads: int
    generator: Generator
    context: tuple[int, int, int] = (0, 0, 0)
    steps: int = 0

    @property
    def region(self) -> tuple[int, int]:
        """Pitches and time steps of its regions."""
        return self.patch, self.steps or self.patch

    def check(self) -> None:
        """Refuse what cannot be built (ConfigError naming the flag and its value)."""
        if self.heads < 1 or not 1 <= self.depth <= MOST_BLOCKS:
            raise ConfigError(
                f"--num_heads at least 1, --num_blocks 1 to {MOST_BLOCKS}, not {self.heads} and {self.depth}"
            )
        if self.width % 2 or not 2 <= self.width <= WIDEST:
            raise ConfigError(f"--embed_dims: even numbers from 2 to {WIDEST}, not {self.width}")
        if len(self.context) != 3 or not 0 <= min(self.context) <= max(self.context) <= FARTHEST:
            raise ConfigError(
                f"--context_pitches, --context_past, --context_future: 0 to {FARTHEST}, not {self.context}"
            )
        if self.width % self.heads:
            raise ConfigError(f"--embed_dims: {self.width} is not divisible by --num_heads {self.heads}")
        if self.generator not in get_args(Generator):
            raise ConfigError(f"--generator_types: {_options(Generator)}, not {quoted(self.generator)}")


def _options(choices: Any) -> str:
    """The values of a ``Literal`` in words."""
    return " or ".join(map(repr, get_args(choices)))


def steps_of(sixteenths: int, steps_per_quarter: int) -> Fraction:
    """Time steps of so many sixteenths on a grid of sixteenths or a finer one; on coarser grids as many steps."""
    return Fraction(sixteenths * max(steps_per_quarter, 4), 4)


def patch_widths(patch_sizes: Sequence[int], steps_per_quarter: int) -> tuple[int, ...]:
    """Time steps of the regions of each level, of their heights in pitches.

    A patch lasts as many sixteenths as it has pitches: one of 16 pitches a bar of four quarters, one of 4 a quarter.
    The last level is a single cell.  So a column of first-level patches is a bar of 4/4 on finer grids, too.

    Raises:
        ConfigError: a patch would not end on a time step.
    """
    widths = [steps_of(patch, steps_per_quarter) for patch in patch_sizes[:-1]]
    for patch, steps in list(zip(patch_sizes, widths, strict=False))[1:]:
        if steps.denominator > 1:
            raise ConfigError(
                f"patch_sizes: at {steps_per_quarter} steps a quarter, patches of {patch} pitches would be"
                f" {float(steps):g} steps wide"
            )
    return (*map(int, widths), 1)


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
    bar_columns: bool = False  # a column of first-level patches is a bar
    plan_width: int = 0  # width of the planner; 0: the model knows no plans
    future_context: bool = False  # AR levels see known cells after the current one too, as MAR levels always do

    def __post_init__(self) -> None:
        self._check_types()
        if not 2 <= len(self.levels) <= MOST_LEVELS:
            raise ConfigError(f"--patch_sizes: 2 to {MOST_LEVELS} levels, not {len(self.levels)}")
        if len(set(self.label_names)) < len(self.attributes):
            raise ConfigError("--attributes: one of them is listed twice")
        for name, highest in (("velocity_bins", 64), ("steps_per_quarter", 480)):
            if not 1 <= getattr(self, name) <= highest:
                raise ConfigError(f"{name}: 1 to {highest}, not {getattr(self, name)}")
        self._check_patches()
        if min(self.max_children, default=0) < 0:
            raise ConfigError(f"--max_children: 0 or more, not {min(self.max_children)}")
        if self.max_children and len(self.max_children) != len(self.levels):
            raise ConfigError(f"--max_children: {len(self.max_children)} numbers for {len(self.levels)} levels")
        if self.max_children and self.max_children[0]:
            raise ConfigError(f"--max_children {self.max_children[0]} ...: the first (the roll) must be 0")
        if not 0 <= self.dropout < 1 or not 0 <= self.label_dropout <= 1:
            raise ConfigError(f"--dropout, --label_dropout: shares, not {self.dropout} and {self.label_dropout}")
        for level in self.levels:
            level.check()
        if self.plan_width % PLANNER_HEADS or not 0 <= self.plan_width <= WIDEST:
            raise ConfigError(f"--plan_width: multiples of {PLANNER_HEADS} from 0 to {WIDEST}, not {self.plan_width}")
        if self.plan_width and not self.bar_columns:
            raise ConfigError("--plan_width: only models with bar_columns know plans")
        self._check_echoes()
        if self.scan_order not in get_args(ScanOrder):
            raise ConfigError(f"--scan_order: {_options(ScanOrder)}, not {quoted(self.scan_order)}")
        self.check_width(self.crop_length, "crop_length")

    def _check_patches(self) -> None:
        for outer, inner in itertools.pairwise(self.levels):
            first = outer is self.levels[0]  # as wide as the roll
            pitches, steps = outer.region
            fits = inner.patch > 0 and inner.steps >= 0 and pitches % inner.patch == 0
            if not fits or (not first and (steps % inner.region[1] or outer.region == inner.region)):
                raise ConfigError(f"--patch_sizes: {outer.patch} cannot be split into patches of {inner.patch}")
        if self.levels[-1].region != (1, 1):
            raise ConfigError(f"--patch_sizes: the last level must be 1 (a single cell), not {self.levels[-1].patch}")

    def _check_echoes(self) -> None:
        echoes = shown(" ".join(map(str, self.echoes)))
        if any(not 0 < abs(distance) <= FARTHEST for distance in self.echoes):
            raise ConfigError(f"--echoes: 1 to {FARTHEST} patches away, not {echoes}")
        if len(set(self.echoes)) < len(self.echoes):
            raise ConfigError(f"--echoes: different distances, not {echoes}")
        if not self.sees_future and min(self.echoes, default=0) < 0:
            raise ConfigError(
                f"--echoes: an AR first level has no later patches to show, {min(self.echoes)} is negative"
            )

    def _check_types(self) -> None:
        """Refuse values of the wrong type, which only a damaged checkpoint contains."""
        counts: dict[str, tuple[Any, ...]] = {
            name: (getattr(self, name),) for name in ("crop_length", "velocity_bins", "steps_per_quarter", "plan_width")
        }
        counts |= {"max_children": self.max_children, "echoes": self.echoes}
        for name in ("patch", "width", "depth", "heads", "steps"):
            counts[name] = tuple(getattr(level, name) for level in self.levels)
        counts["context"] = tuple(number for level in self.levels for number in level.context)
        for name, numbers in counts.items():
            if odd := [number for number in numbers if type(number) is not int]:
                raise ConfigError(f"{name}: whole numbers, not {shown(odd[0])}")
        for name in ("dropout", "label_dropout"):
            if type(getattr(self, name)) not in (int, float):
                raise ConfigError(f"{name}: a number, not {shown(getattr(self, name))}")
        for name in ("future_context", "bar_columns"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name}: true or false, not {shown(getattr(self, name))}")

    @property
    def pitches(self) -> int:
        """Height of the roll."""
        return self.levels[0].patch

    @property
    def patch(self) -> int:
        """Height of the first level's patches, in pitches."""
        return self.levels[1].patch

    @property
    def column(self) -> int:
        """Width of the first level's patches, in time steps."""
        return self.levels[1].region[1]

    @property
    def least_parameters(self) -> int:
        """A lower bound of the number of parameters; the shipped models have 6 to 11 times as many."""
        pitch, past, future = self.levels[-1].context
        least = self.plan_width**2 + (1 + 2 * pitch) * (1 + past + future)
        for level, child in itertools.pairwise(self.levels):
            pitch, past, future = level.context
            window = (child.region[0] + 2 * pitch) * (child.region[1] + past + future)
            least += level.width * (level.depth * level.width + window)
        return least

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels that the model knows."""
        return tuple(attribute.name for attribute in self.attributes)

    @property
    def is_autoregressive(self) -> bool:
        """Whether all levels above the single cells are AR, so that the likelihood is exact."""
        return all(level.generator == "ar" for level in self.levels[:-1])

    @property
    def sees_future(self) -> bool:
        """Whether the first level is conditioned on known cells that lie after the patch it decides."""
        return self.levels[0].generator != "ar" or self.future_context

    @property
    def sees_past_only(self) -> bool:
        """Whether no level is conditioned on known cells that come later, so that gaps need candidates."""
        return self.is_autoregressive and not self.future_context

    @property
    def label_sizes(self) -> tuple[int, ...]:
        """Number of labels of each attribute, 0 (unset) included."""
        return tuple(attribute.size for attribute in self.attributes)

    @property
    def columns(self) -> int:
        """Columns of first-level patches in a training crop."""
        return self.crop_length // self.column

    @property
    def vocabulary(self) -> int:
        """Number of cell tokens: silence, hold and one onset per velocity bin."""
        return 2 + self.velocity_bins

    def check_width(self, width: int, flag: str = "target_width") -> None:
        """Refuse a roll width that the first level cannot split."""
        column = self.column
        if width <= 0 or width % column or width > MAX_STEPS:
            limit = f", at most {MAX_STEPS:,}" if width > MAX_STEPS else ""
            raise ConfigError(
                f"--{flag} {shown(width)}: the width must be a positive multiple of the patch size {column}{limit}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Inverse of :meth:`to_dict`; tuples may have become lists on the way."""
        data = dict(data)
        data["levels"] = tuple(LevelConfig(**{**level, "context": tuple(level["context"])}) for level in data["levels"])
        for name, old in OLD_NAMES.items():
            if old in data:
                data[name] = data.pop(old)
        data.pop("label_sizes", None)  # written, always empty, before there were attributes
        data["attributes"] = tuple(
            attribute if isinstance(attribute, Attribute) else Attribute.from_dict(attribute)
            for attribute in data.get("attributes", ())
        )
        for name in ("max_children", "echoes"):
            data[name] = tuple(data.get(name, ()))
        return cls(**data)

    def layout(self, meters: Meters, steps: int) -> BarLayout:
        """The columns of a piece of so many steps in these meters.

        Raises:
            ConfigError: columns are no bars, and the steps do not fill them.
        """
        from fractalgen.music.bars import BarLayout  # needs NumPy, which --help does without

        if self.bar_columns:
            return BarLayout.of(meters, steps, self.steps_per_quarter, self.column)
        self.check_width(steps)
        return BarLayout.plain(steps, self.column)

    def fit_iterations(self, num_iter_list: tuple[int, ...]) -> tuple[int, ...]:
        """``num_iter_list`` with as many numbers as there are levels: cut, or filled up with 1."""
        return (*num_iter_list, *[1] * len(self.levels))[: len(self.levels)]
