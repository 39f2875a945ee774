"""What a page asks to be composed, and the flags of ``fractalgen generate`` that say the same."""

from __future__ import annotations

import typing
from bisect import bisect_right
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fractalgen.compose.recipe import APART
from fractalgen.config import GenerateConfig, check_bounds
from fractalgen.config.values import convert, field_types, members
from fractalgen.errors import UserError, shown
from fractalgen.music.midi_events import TickGrid
from fractalgen.music.planning import natural_bars
from fractalgen.music.tokens import PITCHES, TEMPO
from fractalgen.studio.document import LONGEST, TICKS, Document

Mode = Literal["new", "continue", "region", "accompany", "vary"]
FLAG_MODES = {
    "new": "unconditional",
    "continue": "conditional",
    "region": "inpainting",
    "accompany": "accompany",
    "vary": "variation",
}
MOST_SAMPLES, MOST_BARS, MOST_TOGETHER = 16, 512, 1024
OURS = {
    *("mode", "num_samples", "sample", "checkpoint", "device", "threads", "hands", "pedal", "lead_sheet"),
    *("condition_midi", "condition_length", "input_midi", "mask", "mask_start", "mask_end", "compose_bars"),
    *("target_width", "generation_length"),
}
"""Flags that the studio sets itself, or that name files."""
FLAGS = {item.name: item for item in fields(GenerateConfig) if item.name not in APART | OURS}
"""Flags that a page may give."""
RIGHT_HAND, LEFT_HAND = 0, 1


class Checked(BaseModel):
    """Data from outside: of the right types, and nothing else with it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Region(Checked):
    """Ticks and pitches, the ends excluded."""

    start: int = Field(ge=0, le=LONGEST)
    end: int = Field(ge=0, le=LONGEST)
    low: int = Field(default=0, ge=0, le=PITCHES)
    high: int = Field(default=PITCHES, ge=0, le=PITCHES)

    @model_validator(mode="after")
    def _not_empty(self) -> Region:
        if self.start >= self.end or self.low >= self.high:
            raise UserError(f"region {self}: it is empty")
        return self


class Request(Checked):
    """What is to be composed from a state: see docs/studio_api.md."""

    state: int = Field(ge=0)
    mode: Mode
    flags: Annotated[dict[str, Any], AfterValidator(lambda flags: read_flags(flags))] = {}
    region: Region | None = None
    hand: int | None = Field(default=None, ge=RIGHT_HAND, le=LEFT_HAND)
    num_samples: int = Field(default=1, ge=1, le=MOST_SAMPLES)
    lane: bool = False

    @model_validator(mode="after")
    def _with_region(self) -> Request:
        if self.mode == "region" and self.region is None:
            raise UserError("mode region: region is needed, start and end in ticks")
        return self

    def config(self, document: Document, path: Path, steps_per_quarter: int = 4, **ours: Any) -> GenerateConfig:
        """The settings of ``fractalgen generate`` for a piece that lies in the MIDI file ``path``.

        ``ours``: further settings.

        Raises:
            UserError: nothing is left to compose.
        """
        settings: dict[str, Any] = {"mode": FLAG_MODES[self.mode], "num_samples": self.num_samples, **ours}
        settings |= self.flags
        if self.mode == "continue":
            settings["condition_midi"] = str(path)
        elif self.mode != "new":
            settings |= {"input_midi": str(path), "mask": self.mask(document, steps_per_quarter)}
            settings |= self._hand(document)
        settings["best_of"] = (
            1  # the page shows what is composed, patch by patch; its alternatives are the user's choice
        )
        settings["batch_size"] = min(settings.get("batch_size", GenerateConfig.batch_size), self.num_samples)
        return GenerateConfig(**settings)

    def check(self, document: Document) -> None:
        """Refuse what is too much for a studio.

        Raises:
            UserError: the piece that would come out, or all samples together, are too long.
        """
        given = 0.0 if self.mode == "new" else document.length / (4 * TICKS)
        bars = max(given + self._bars_asked(document), self._bars_told())
        if bars > MOST_BARS or bars * self.num_samples > MOST_TOGETHER:
            samples = f" in {self.num_samples} samples" * (self.num_samples > 1)
            raise UserError(
                f"{bars:g} bars{samples}: the studio composes pieces of at most {MOST_BARS} bars of four quarters, and"
                f" {MOST_TOGETHER} in all"
            )

    def _bars_asked(self, document: Document) -> float:
        """How many bars of four quarters are asked for, as a number or as seconds."""
        tempo = (self.flags.get("tempo") or TEMPO) if self.mode == "new" else document.tempos[-1][1]
        return self.flags.get("bars") or (self.flags.get("seconds") or 0.0) * tempo / 240

    def _bars_told(self) -> int:
        """How many bars the form or the chords of the piece have."""
        if self.mode not in ("new", "continue"):
            return 0
        return natural_bars(self.flags.get("form"), self.flags.get("chords") if self.mode == "new" else None, 0)

    def label(self, document: Document) -> str:
        """How the states of the result are called."""
        text = {"new": "new piece", "region": "compose"}.get(self.mode, self.mode)
        if self.region is not None and self.mode != "new":
            lines = document.bar_lines()
            first, last = (bisect_right(lines, tick) for tick in (self.region.start, self.region.end - 1))
            text += f" bars {first}-{last}" if last > first else f" bar {first}"
        return text

    def _hand(self, document: Document) -> dict[str, Any]:
        """Composing one hand anew is accompanying the other one; where the other one rests, it is filling a region."""
        if self.hand is None or self.mode not in ("region", "accompany"):
            return {}
        hands = {note.hand for note in document.notes}
        left = self.hand == LEFT_HAND
        if hands == {self.hand}:
            return {"mode": "inpainting"}
        voice = "all" if hands == {1 - self.hand} else "right" if left else "left"
        return {"mode": "accompany", "voice": voice, "side": "below" if left else "above"}

    def mask(self, document: Document, steps_per_quarter: int) -> tuple[str, ...]:
        """Rectangles of the region; none where everything may be composed.

        They leave out the cells of notes that are locked, and of those that begin before the region.

        Raises:
            UserError: nothing is left of it, or the piece is empty.
        """
        if not document.length:
            raise UserError("the piece is empty")
        nearest = TickGrid(TICKS, steps_per_quarter).step
        width = max(1, nearest(document.length))
        whole = Region(start=0, end=document.length)
        region = self.region or whole
        if region == whole and self.mode != "region" and not any(note.locked for note in document.notes):
            return ()
        start, stop = region.start * steps_per_quarter // TICKS, min(-(-region.end * steps_per_quarter // TICKS), width)
        plane = np.zeros((PITCHES, width), np.bool_)
        plane[region.low : region.high, start:stop] = True
        for note in document.notes:
            first = nearest(note.start)
            if note.locked or first < start:
                plane[note.pitch, first : max(nearest(note.end), first + 1)] = False
        if not plane.any():
            raise UserError(
                "region: nothing to compose in it, all of its notes are locked or begin before it, or it lies behind"
                " the piece"
            )
        return tuple(_rectangles(plane))


def read_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Values of flags as the command line takes them.

    Raises:
        UserError: a flag that does not exist or that is not for pages, or a value that it does not take.
    """
    hints = field_types(GenerateConfig)
    values = {}
    for name, value in flags.items():
        if name not in FLAGS:
            raise UserError(f"--{shown(name)}: not a flag that the studio takes")
        if isinstance(value, str) and len(value) > 10_000:
            raise UserError(f"--{name}: {len(value):,} characters are too many")
        values[name] = convert(name, hints[name], value)
    check_bounds(GenerateConfig(**values))
    for name, most in (("bars", MOST_BARS), ("seconds", 3600.0), ("candidates", 32)):
        if (values.get(name) or 0) > most:
            raise UserError(f"--{name} {values[name]:g}: the studio composes at most {most:g}")
    return values


def flag_facts() -> list[dict[str, Any]]:
    """What a page needs to show the flags: name, help, type, choices, bounds, default and group of each."""
    hints = field_types(GenerateConfig)
    group = {name: title for title, names in GenerateConfig.groups.items() for name in names}
    facts = []
    for name, item in FLAGS.items():
        options, _ = members(hints[name])
        literal = [option for option in options if typing.get_origin(option) is Literal]
        plain = next((option.__name__ for option in (float, int, bool) if option in options), "str")
        is_list = any(typing.get_origin(option) is tuple for option in options)
        facts.append(
            {
                "name": name,
                "help": item.metadata.get("help", ""),
                "type": "choice" if literal else "list" if is_list and plain == "str" else plain,
                "choices": list(get_args(literal[0])) if literal else None,
                "low": item.metadata.get("low"),
                "high": item.metadata.get("high"),
                "default": item.default,
                "group": group.get(name, ""),
            }
        )
    return facts


def _rectangles(plane: npt.NDArray[np.bool_]) -> list[str]:
    """The cells of a plane as rectangles of ``--mask``."""
    found = []
    low = 0
    for pitch in range(1, len(plane) + 1):
        if pitch < len(plane) and np.array_equal(plane[pitch], plane[low]):
            continue
        edges = np.flatnonzero(np.diff(np.r_[False, plane[low], False].astype(np.int8)))
        pitches = "" if (low, pitch) == (0, len(plane)) else f",pitch={low}:{pitch}"
        found += [f"time={start}:{stop}{pitches}" for start, stop in edges.reshape(-1, 2).tolist()]
        low = pitch
    return found
