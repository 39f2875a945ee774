"""Settings of ``fractalgen prepare``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fractalgen.config.fields import Groups, Pedal, setting


@dataclass(frozen=True)
class PrepareConfig:
    """``fractalgen prepare``: a folder of MIDI files becomes one packed corpus."""

    groups: ClassVar[Groups] = {
        "most used": ("data", "out", "splits", "licence", "report"),
        "grid": ("steps_per_quarter", "velocity_bins", "pedal", "restrike"),
        "which files": (
            "tracks",
            "merge",
            "allow_off_grid",
            "max_grid_distance",
            "keep_duplicates",
            "manifest",
            "style",
        ),
        "computation": ("num_workers", "scheduler", "shard_megabytes"),
    }

    data: str = setting(
        "",
        "folder of MIDI files (with sub-folders), an archive or table of them (.tar, .tar.gz, .zip, .parquet), one MIDI"
        " file, the address of any of these (s3://...), or a JSB chorales .json file",
    )
    out: str = setting(
        "corpus.safetensors",
        "packed corpus to write: a file, if the name ends in .safetensors, or a folder of shards, where a run goes on"
        " behind an earlier one; always on a disk of this machine",
    )
    splits: str | None = setting(
        None, "JSON file {train: [ids], valid: [ids], test: [ids]} (default: split by a hash of the name)"
    )
    steps_per_quarter: int = setting(4, "time steps per quarter note", low=1, high=480)
    velocity_bins: int = setting(32, "velocity classes", low=1, high=64)
    pedal: Pedal = setting(
        "follow", "notes sound while the sustain pedal is down (follow) or only while the key is (ignore)"
    )
    allow_off_grid: bool = setting(False, "keep files whose notes do not lie on their own beats")
    max_grid_distance: float = setting(
        0.15, "mean distance of onsets to the grid, in steps, up to which a file is on the grid (random times: 0.25)"
    )
    keep_duplicates: bool = setting(False, "keep files whose notes equal those of another file")
    manifest: str | None = setting(
        None,
        "CSV or TSV file with the columns `file` and `style` (default: the style is the name of the sub-folder), and"
        " maybe `velocities`: those of files marked `flat` are not learned",
    )
    style: str = setting("", "style of the songs that have no other")
    tracks: tuple[str, ...] = setting(
        (),
        "only these tracks: names (* stands for any text), numbers from 0, or General MIDI programs from 0 as"
        " program:A-B; e.g. melody 2 program:0-7",
    )
    merge: tuple[str, ...] = setting((), "packed corpora to put together into one file, in place of --data")
    restrike: bool = setting(False, "strike all sounding notes again at every step: chords without holds")
    licence: str = setting("unknown", "licence of the music, stored in the corpus")
    report: str | None = setting(None, "file for the list of skipped files (tab separated: file, reason)")
    num_workers: int = setting(0, "processes that read files (0: one per core)", low=0)
    scheduler: str | None = setting(None, "address of a Dask scheduler whose workers read the files (tcp://HOST:8786)")
    shard_megabytes: float = setting(
        256.0, "size of a shard; prepare needs about three times as much memory", low=0.001
    )
