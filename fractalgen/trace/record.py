"""The record of how a roll was composed.

A cell is written once, so the whole process is the finished roll plus, for every level, the number of the step at
which that level decided the cell.  Those few integer planes are a :class:`Record`; pictures of any moment and of any
level are computed from it on demand.  Nothing here knows the model or how frames are drawn.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import reprlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from fractalgen.config import MOST_LEVELS, Generator
from fractalgen.errors import UserError, reason, shown
from fractalgen.files import replacing
from fractalgen.music import MAX_STEPS
from fractalgen.music.bars import BarLayout, units_of
from fractalgen.music.chords import flats_in
from fractalgen.music.labels import spell_key
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.plan import Plan, Span, lane_of
from fractalgen.music.tokens import DEFAULT_TEMPO, ONSET, PITCHES, SILENCE, velocities

FORMAT = "fractalgen.trace"
VERSION = 2  # 2 may hold chances; files of version 1 are read as before

_ARRAYS: dict[str, tuple[type[np.generic], ...]] = {
    "tokens": (np.uint8,),
    "decided": (np.int16, np.int32),  # int32 where a piece has more steps than int16 can count
    "steps": (np.int16, np.int32),
    "known": (np.bool_,),
    "seconds": (np.float32,),
    "chances": (np.uint8,),
}
_OPTIONAL = {"chances"}
_MOST_BYTES = PITCHES * MAX_STEPS * (4 * MOST_LEVELS + 16)  # of the longest piece, in levels of int32
_MOST_HEADER = 1 << 24  # bytes of JSON, four a character: more than tempi and meters of the longest piece take
DEFAULT_STEPS_PER_QUARTER = 4


@dataclass(frozen=True, eq=False)
class Record:
    """How one roll was composed.

    Attributes:
        tokens: the finished roll, uint8 (128, T); 0 silence, 1 hold, 2.. onset by velocity bin.
        decided: int16 (levels, 128, T).  Plane 0: index into ``steps`` of the step at which the first level decided
            the cell's patch, silent or not.  Plane l: the local step inside its parent at which level l decided the
            child patch that contains the cell.  -1 where the level never went (a silent parent) and on known cells.
        steps: int16 (number of steps, 2): (iteration, batch) of each step of the first level, counted from 0; for
            AR the iteration is the patch's rank in scan order and the batch 0.  (Both are int32 in pieces of more
            than 32,767 steps.)
        known: bool (128, T), cells that were given and not composed.
        generators: "ar" or "mar" per level.
        patch_sizes: height of the region that each level owns, the last one 1.
        scan_order: "column_major" or "row_major".
        num_iter_list: iterations per level; also the frames per level of the hierarchical view.
        velocity_bins: number of velocity bins of ``tokens``.
        seed, checkpoint, settings: where the roll came from; plain JSON data.  Where bars are columns and shorter than
            these, ``settings`` has ``columns``, the steps of each; ``plan`` is what :meth:`.Plan.to_dict` writes;
            ``patch_steps`` are the steps of patches of each level but the first, where they are not as many as pitches.
        seconds: float32 (number of steps,), time since the beginning at which each step ended.
        chances: uint8 (128, T) or None where none were kept: for every composed cell 255 times the probability that
            the smallest patch around it that was looked into sounds, as the gates asked on the way gave it, multiplied
            level by level; 0 on known cells.

    A file (:meth:`save`) is a compressed ``.npz`` of these arrays under their names, without ``chances`` where there
    are none, and of ``header``: JSON text with ``format`` ("fractalgen.trace"), ``version`` (2) and all other
    attributes by name.  Version 1 is the same, and never has ``chances``.
    """

    tokens: NDArray[np.uint8]
    decided: NDArray[np.int16 | np.int32]
    steps: NDArray[np.int16 | np.int32]
    known: NDArray[np.bool_]
    generators: tuple[str, ...]
    patch_sizes: tuple[int, ...]
    scan_order: str
    num_iter_list: tuple[int, ...]
    seconds: NDArray[np.float32]
    velocity_bins: int = 32
    seed: int | None = None
    checkpoint: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    chances: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        self._check_facts()
        cells = self.tokens.shape
        levels = len(self.patch_sizes)
        count = len(self.steps)
        shapes = {
            "tokens": (self.patch_sizes[0], *cells[1:2]),
            "decided": (levels, *cells),
            "steps": (count, 2),
            "known": cells,
            "seconds": (count,),
            "chances": cells,
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is None and name in _OPTIONAL:
                continue
            if array.shape != shape or array.dtype not in _ARRAYS[name]:
                wanted = f"{np.dtype(_ARRAYS[name][0])} {shape}"
                raise ValueError(f"trace: {name} must be {wanted}, not {array.dtype} {array.shape}")
        if any(cells[1] % steps for _, steps in self.patches):
            raise ValueError(f"trace: patch sizes {self.patches} do not tile a roll of {cells[1]} steps")
        if count > 2 * self.num_patches:  # in each of them at least one patch is decided, of one of the pieces at least
            raise ValueError(f"trace: {count:,} steps for {self.num_patches:,} patches")
        if self.tokens.max(initial=SILENCE) >= ONSET + self.velocity_bins:
            raise ValueError(f"trace: token {self.tokens.max()} with {self.velocity_bins} velocity bins")
        if self.decided.min(initial=-1) < -1 or self.decided[0].max(initial=-1) >= count:
            raise ValueError(f"trace: a cell was decided at step {self.decided[0].max(initial=-1)} of {count}")
        if not np.isfinite(self.seconds).all():
            raise ValueError("trace: seconds must be finite")
        if self.chances is not None and self.chances[self.known].any():
            raise ValueError("trace: chances of known cells must be 0")

    def _check_facts(self) -> None:
        """Refuse a header that no model could have written (ValueError)."""
        sizes = self.patch_sizes
        if not all(type(size) is int and size > 0 for size in sizes) or sizes[-1:] != (1,):
            raise ValueError(f"trace: patch sizes {reprlib.repr(sizes)} do not end in single cells")
        if not 2 <= len(sizes) <= MOST_LEVELS or sizes[0] > PITCHES or not _nested(sizes):
            raise ValueError(f"trace: patch sizes {reprlib.repr(sizes)} do not divide each other")
        widths = self.settings.get("patch_steps", sizes[1:]) if isinstance(self.settings, dict) else sizes[1:]
        if not isinstance(widths, list | tuple) or len(widths) != len(sizes) - 1 or not _nested(widths):
            raise ValueError(f"trace: patches of {reprlib.repr(widths)} steps do not divide each other")
        known = {
            "generators": [generator in get_args(Generator) for generator in self.generators],
            "num_iter_list": [type(count) is int and 0 < count <= MAX_STEPS for count in self.num_iter_list],
        }
        for name, right in known.items():
            if len(right) != len(sizes) or not all(right):
                value = reprlib.repr(getattr(self, name))
                raise ValueError(f"trace: {name} {value} does not fit {len(sizes)} levels")
        if self.scan_order not in ("column_major", "row_major"):
            raise ValueError(f"trace: scan order {reprlib.repr(self.scan_order)}")
        if type(self.velocity_bins) is not int or not 1 <= self.velocity_bins <= 64:
            raise ValueError(f"trace: {reprlib.repr(self.velocity_bins)} velocity bins")
        if not isinstance(self.settings, dict) or not isinstance(self.checkpoint, str):
            raise ValueError("trace: settings must be an object and checkpoint a text")
        if self.seed is not None and type(self.seed) is not int:
            raise ValueError(f"trace: seed {reprlib.repr(self.seed)}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        mine, theirs = self._arrays(), other._arrays()
        same = mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)
        return same and self._header() == other._header()

    @property
    def width(self) -> int:
        """Number of time steps."""
        return int(self.tokens.shape[1])

    @property
    def patches(self) -> tuple[tuple[int, int], ...]:
        """Pitches and time steps of the patches that each level decides; those of the last are single cells."""
        pitches = self.patch_sizes[1:]
        return tuple(zip(pitches, self.settings.get("patch_steps", pitches), strict=True))

    @property
    def num_patches(self) -> int:
        """Number of patches of the first level, known ones included."""
        pitches, steps = self.patches[0]
        return (self.patch_sizes[0] // pitches) * (self.width // steps)

    @property
    def steps_per_quarter(self) -> int:
        """Time steps of a quarter note, as ``settings`` say (default: 4)."""
        return _positive(self.settings.get("steps_per_quarter"), DEFAULT_STEPS_PER_QUARTER)

    @property
    def steps_per_bar(self) -> int:
        """Time steps of a bar, as ``settings`` say (default: four quarters)."""
        return _positive(self.settings.get("steps_per_bar"), 4 * self.steps_per_quarter)

    @cached_property
    def bars(self) -> tuple[int, ...]:
        """Steps at which bars begin, by the meters that ``settings`` say, or else every ``steps_per_bar``."""
        if self.settings.get("meters"):
            return tuple(self.roll.downbeats().tolist())
        return tuple(range(0, self.layout.num_steps, self.steps_per_bar))

    @cached_property
    def layout(self) -> BarLayout:
        """The columns of first-level patches, as ``settings`` say how many steps each has (default: all of them)."""
        patch = self.patches[0][1]
        lengths = self.settings.get("columns")
        if lengths is None:
            return BarLayout.plain(self.width, patch)
        if (
            not isinstance(lengths, list | tuple)
            or not all(type(length) is int and 0 <= length <= patch for length in lengths)
            or len(lengths) * patch != self.width
        ):
            raise ValueError(f"trace: columns {reprlib.repr(lengths)} in a roll of {self.width} steps")
        counts = np.array(lengths, np.int64)
        return BarLayout(np.cumsum(counts) - counts, counts, np.arange(len(counts)), patch)

    def strip(self, plane: NDArray[Any]) -> NDArray[Any]:
        """An array (..., T) without steps that do not exist: a bar that is shorter than its column ends before it."""
        return plane if self.layout.exists.all() else self.layout.strip(plane)

    @cached_property
    def plan(self) -> Plan | None:
        """The plan that the piece was composed by, if ``settings`` have one."""
        data = self.settings.get("plan")
        if data is None:
            return None
        plan = Plan.from_dict(data)
        if len(plan) != len(self.layout) or len(plan.chords) != len(plan) * units_of(self.layout.patch):
            raise ValueError(f"trace: a plan of {len(plan)} columns in a roll of {self.width} steps")
        return plan

    @cached_property
    def lane(self) -> tuple[Span, ...]:
        """Sections and chords of the plan, in the steps of the finished piece; empty without a plan."""
        if self.plan is None:
            return ()
        flats = flats_in(spell_key(str(self.settings.get("key", ""))))
        return tuple(lane_of(self.plan, self.layout, flats))

    @cached_property
    def roll(self) -> PianoRoll:
        """The finished piece, as long, in the tempi and in the meters that ``settings`` say (default: 120, 4/4)."""
        tempo = self.settings.get("tempo")
        fixed = ((0, float(tempo)),) if isinstance(tempo, int | float) and tempo > 0 else (DEFAULT_TEMPO,)
        return PianoRoll(
            self._piece(self.tokens),
            steps_per_quarter=self.steps_per_quarter,
            velocity_bins=self.velocity_bins,
            tempos=tuple((step, bpm) for step, bpm in self.settings.get("tempos", fixed)),
            time_signatures=tuple((step, beats, unit) for step, beats, unit in self.settings.get("meters", ())),
        )

    @cached_property
    def marked(self) -> NDArray[np.bool_] | None:
        """``known`` for the frames: None if every cell was composed."""
        return self.known if self.known.any() else None

    @cached_property
    def marked_roll(self) -> NDArray[np.bool_] | None:
        """``marked`` for the finished piece, without steps that do not exist."""
        return None if self.marked is None else self._piece(self.marked)

    def _piece(self, plane: NDArray[Any]) -> NDArray[Any]:
        """An array (pitches, T) as long as the piece and of all pitches: a small model may know fewer."""
        length = _positive(self.settings.get("length"), self.width)
        return np.pad(self.strip(plane)[:, :length], ((0, PITCHES - len(plane)), (0, 0)))

    @cached_property
    def velocities(self) -> NDArray[np.float32]:
        """Velocities of the finished roll in 0..1, (128, T)."""
        return velocities(self.tokens, self.velocity_bins)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are present."""
        return {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}

    def _header(self) -> dict[str, Any]:
        """Everything but the arrays, as it comes back from JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _ARRAYS}
        result: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "version": VERSION, **plain}))
        return result

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz`` (arrays and one JSON text, no pickles); equal traces give equal bytes."""
        content: dict[str, Any] = {"header": np.array(json.dumps(self._header())), **self._arrays()}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **content)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: no such file, not a trace, damaged, or written by a newer version.
        """
        try:
            with open(path, "rb") as stream, zipfile.ZipFile(stream) as file:
                if (unpacked := sum(member.file_size for member in file.infolist())) > _MOST_BYTES:
                    raise ValueError(f"{unpacked:,} bytes of arrays, more than any piece has")
                header = json.loads(str(_array(file, "header", most=_MOST_HEADER)))
                if header["format"] != FORMAT:
                    raise ValueError(f"its format is {header['format']!r}")
                if header["version"] > VERSION:
                    message = f"trace version {shown(header['version'])}; this program reads up to {VERSION}"
                    raise UserError(f"{path}: {message}: update FractalGen")
                fields = {name: value for name, value in header.items() if name not in ("format", "version")}
                for name in ("generators", "patch_sizes", "num_iter_list"):
                    fields[name] = tuple(fields[name])
                for name in _ARRAYS:
                    if name not in _OPTIONAL or f"{name}.npy" in file.namelist():
                        fields[name] = _array(file, name)
                trace = cls(**fields)
                _ = trace.bars, trace.roll, trace.lane  # what the settings say of tempi, meters and plan can be used
                return trace
        except UserError as error:
            raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        except Exception as error:
            # A damaged archive, foreign arrays, parts that do not fit together: NumPy, zipfile, zlib and the parsers
            # of array headers raise exceptions of many kinds.
            raise UserError(f"{path}: not a FractalGen trace ({reason(error)})") from error


def _array(file: zipfile.ZipFile, name: str, most: int = _MOST_BYTES) -> NDArray[Any]:
    """An array of an archive that :func:`numpy.savez` wrote; no code in it is run.

    Raises:
        ValueError: it is larger than ``most`` bytes, or its header says that it is larger than it is.
    """
    size = file.getinfo(f"{name}.npy").file_size
    with file.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size or size > most:
        raise ValueError(f"{name}: {dtype} {shape} in {size:,} bytes")
    with file.open(f"{name}.npy") as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _nested(sizes: Sequence[object]) -> bool:
    """Whether these are sizes of patches in patches, the last a single cell; they may be anything."""
    whole = [size for size in sizes if type(size) is int and size > 0]
    divided = all(outer % inner == 0 for outer, inner in itertools.pairwise(whole))
    return len(whole) == len(sizes) and whole[-1] == 1 and divided


def _positive(value: object, default: int) -> int:
    """A whole number above 0 out of settings, which may hold anything."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default
