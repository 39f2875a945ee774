"""``fractalgen prepare --merge``: packed corpora become one."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from fractalgen.config import PrepareConfig
from fractalgen.data.corpus import SPLITS, Corpus, Split, write_corpus
from fractalgen.data.packing import ENDING
from fractalgen.data.reading import Skipped, fingerprint
from fractalgen.data.song import Song
from fractalgen.data.summary import Summary, print_summary
from fractalgen.errors import UserError

MERGING = ("merge", "out", "style", "keep_duplicates", "num_workers")
"""Flags that mean something together with ``--merge``."""


def merge(config: PrepareConfig) -> Summary:
    """Put packed corpora together: each song keeps its split, style and chords; copies of other songs are left out.

    Raises:
        UserError: they differ in their grid or velocities, have songs of the same name, or a flag means nothing here;
            nothing has been written.
    """
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name not in MERGING and value != item.default:
            told = " ".join(value) if isinstance(value, tuple) else value
            raise UserError(f"--{item.name} {told}: not together with --merge {config.merge[0]}")
    if Path(config.out).suffix.lower() != ENDING:
        raise UserError(
            f"--out {config.out}: --merge writes one file; its name must end in {ENDING} (to add music to "
            "a folder of shards, run `fractalgen prepare --data` with it once more)"
        )
    corpora = [Corpus.open(path) for path in config.merge]
    first = corpora[0]
    songs: list[Song] = []
    splits: dict[str, Split] = {}
    skipped: list[Skipped] = []
    contents: dict[bytes, str] = {}
    for corpus in corpora:
        for name in ("steps_per_quarter", "velocity_bins"):
            here, there = getattr(first, name), getattr(corpus, name)
            if here != there:
                raise UserError(f"--merge: {name} is {here} in {first.path} and {there} in {corpus.path}")
        if twins := splits.keys() & set(corpus.song_ids):
            raise UserError(f"--merge: {min(twins)} is in {corpus.path} and in a corpus before it")
        splits |= dict(zip(corpus.song_ids, corpus.splits, strict=True))
        for song in map(corpus.song, range(len(corpus))):
            twin = contents.setdefault(fingerprint(song), song.name)
            if twin != song.name and not config.keep_duplicates:
                skipped.append(Skipped(song.name, f"the same notes as {twin}"))
            else:
                songs.append(replace(song, style=song.style or config.style))
    write_corpus(
        songs,
        splits,
        Path(config.out),
        steps_per_quarter=first.steps_per_quarter,
        velocity_bins=first.velocity_bins,
        provenance=" and ".join(str(corpus.metadata.get("provenance")) for corpus in corpora),
        licence=" and ".join(dict.fromkeys(str(corpus.metadata.get("licence")) for corpus in corpora)),
        merged=[path.name for path in map(Path, config.merge)],
        skipped=[[entry.file, entry.reason] for entry in skipped],
    )
    counts = {name: sum(splits[song.name] == name for song in songs) for name in SPLITS}
    summary = Summary(len(songs), sum(len(song.notes) for song in songs), counts, skipped, [], len(skipped), 0)
    print_summary(summary, config)
    return summary
