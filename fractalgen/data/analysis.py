"""What is worked out of a song once, when it goes into a corpus: the long part of making one."""

from __future__ import annotations

from dataclasses import dataclass

from fractalgen.data.attributes import Measured
from fractalgen.data.song import Song
from fractalgen.music.chord_estimate import estimate_chords
from fractalgen.music.chords import Chords
from fractalgen.music.keys import Keys, key_changes
from fractalgen.music.tokens import grid_steps, without_repeats


@dataclass(frozen=True)
class Analysis:
    """Changes of key and of chord of a song, and what is measured in its excerpts."""

    keys: Keys
    chords: Chords
    measured: Measured

    @classmethod
    def of(cls, song: Song, steps_per_quarter: int, velocity_bins: int) -> Analysis:
        """Annotated chords are taken as they are."""
        return cls(
            key_changes(song.tokens(), steps_per_quarter),
            song.chords or estimated_chords(song, steps_per_quarter),
            Measured.of(song, steps_per_quarter, velocity_bins),
        )


def estimated_chords(song: Song, steps_per_quarter: int) -> Chords:
    """Changes of chord of a song that nobody annotated, by :func:`~fractalgen.music.chord_estimate.estimate_chords`."""
    beats = grid_steps(song.meters, song.num_steps, steps_per_quarter, "beat")
    codes = estimate_chords(song.tokens(), beats, grid_steps(song.meters, song.num_steps, steps_per_quarter)).tolist()
    return without_repeats(zip(beats.tolist(), codes, strict=True))
