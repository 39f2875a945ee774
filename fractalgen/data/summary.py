"""What a user is told at the end of ``fractalgen prepare``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fractalgen.config import PrepareConfig
from fractalgen.data.corpus_file import Split
from fractalgen.data.reading import Read, Skipped, file_count

SHOWN = 20  # skipped files listed on the terminal
SHOWN_GRIDS = 3  # of those that would keep notes, the ones that fit most files


@dataclass(frozen=True)
class Summary:
    """Result of :func:`fractalgen.data.prepare.prepare`; ``damaged``: incomplete files that were read nevertheless.

    Of a folder the first of the skipped and the damaged files are here, and ``num_skipped``, ``num_damaged`` count all.
    """

    songs: int
    notes: int
    splits: dict[Split, int]
    skipped: list[Skipped]
    damaged: list[Skipped]
    num_skipped: int
    num_damaged: int


@dataclass
class Losses:
    """Effects of the pedal and the grid on the notes of the songs, counted."""

    songs: int = 0
    notes: int = 0
    pedalled: int = 0
    merged: int = 0
    moved: int = 0
    lossy: int = 0
    grids: Counter[int] = field(default_factory=Counter)

    def add(self, read: Read) -> None:
        """Count a song."""
        self.songs += 1
        self.notes += len(read.song.notes)
        self.pedalled += read.pedalled
        self.merged += read.merged
        self.moved += read.moved
        self.lossy += bool(read.merged or read.moved)
        if read.fitting_grid:
            self.grids[read.fitting_grid] += 1

    def print(self) -> None:
        """One line each."""
        if self.pedalled:
            print(
                f"the pedal lengthens {self.pedalled:,} of {self.notes:,} notes "
                "(--pedal ignore: they end when the key comes up)"
            )
        if self.lossy:
            line = (
                f"{file_count(self.lossy)}: {self.merged:,} notes merged with others, "
                f"{self.moved:,} moved by more than a quarter of a step"
            )
            if self.grids:
                (grid, count), *others = self.grids.most_common(SHOWN_GRIDS)
                line += f"; --steps_per_quarter {grid} would keep those of {count}"
                line += "".join(f", {grid} of {count}" for grid, count in others)
            print(line)


def print_summary(summary: Summary, config: PrepareConfig) -> None:
    """Print what was left out and why, and what the corpus has."""
    for what, entries, count in (
        ("skipped", summary.skipped, summary.num_skipped),
        ("damaged", summary.damaged, summary.num_damaged),
    ):
        for entry in entries[:SHOWN]:
            print(f"{what} {entry.file}: {entry.reason}")
        if count > SHOWN:
            print(f"{what} {count - SHOWN} more ({config.report or '--report FILE lists them all'})")
    splits = ", ".join(f"{name} {count}" for name, count in summary.splits.items())
    songs = f"{summary.songs} song{'s' * (summary.songs != 1)}"
    print(f"{config.out}: {songs} ({splits}), {summary.notes:,} notes; {file_count(summary.num_skipped)} skipped")
