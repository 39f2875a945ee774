"""Settings of ``fractalgen prepare``."""

from __future__ import annotations

from dataclasses import dataclass

from fractalgen.config.fields import Pedal, setting


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
