"""Songs on their way into a corpus: one file of them all, or shards in a folder, each written when it is full."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fractalgen.data.analysis import Analysis
from fractalgen.data.corpus import write_corpus
from fractalgen.data.corpus_file import SPLITS, VERSION, Split, map_corpus
from fractalgen.data.ledger import Ledger
from fractalgen.data.shards import FOLDER_FORMAT, INDEX_FORMAT, MANIFEST, shard_path
from fractalgen.data.song import Song
from fractalgen.files import write_json, write_tensors

ENDING = ".safetensors"  # of a corpus in one file; any other name is a folder's
MEGABYTE = 1_000_000


def hash_share(name: str) -> float:
    """A number from 0 to 1 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def split_of(name: str) -> Split:
    """80 % train, 10 % valid, 10 % test by a hash of the song id: songs that come later change nothing for others."""
    share = hash_share(name)
    return "test" if share < 0.1 else "valid" if share < 0.2 else "train"


def split_by_hash(names: Iterable[str]) -> dict[str, Split]:
    """:func:`split_of` each; only of a few songs, where a split would stay empty, the nearest by hash moves over.

    Train comes first, test last.
    """
    splits = {name: split_of(name) for name in names}
    needed = SPLITS[: len(splits)]
    for wanted in needed:
        counts = Counter(splits.values())
        if not counts[wanted]:
            spare = [name for name, split in splits.items() if counts[split] > 1 or split not in needed]
            splits[min(spare, key=hash_share)] = wanted
    return splits


class Pack:
    """Songs that go into one file."""

    def __init__(self) -> None:
        self.songs: list[Song] = []
        self.analyses: list[Analysis] = []
        self.chosen: dict[str, Split] = {}
        self.bytes = 0

    def add(self, song: Song, analysis: Analysis, split: Split | None) -> None:
        """Add a song; without a split it is split by its hash."""
        self.songs.append(song)
        self.analyses.append(analysis)
        if split is not None:
            self.chosen[song.name] = split
        self.bytes += 9 * len(song.notes) + 12 * (len(song.tempos) + len(song.meters)) + 2 * len(song.name) + 64
        self.bytes += 5 * len(analysis.keys) + 6 * len(analysis.chords)

    def splits(self) -> dict[str, Split]:
        """The split of each song; of a few songs none stays empty."""
        return split_by_hash(song.name for song in self.songs if song.name not in self.chosen) | self.chosen

    def write(self, path: Path, splits: dict[str, Split], **about: Any) -> dict[str, int]:
        """Write the file, and return what it has: ``songs``, ``notes``, songs of each split."""
        write_corpus(self.songs, splits, path, analyses=self.analyses, **about)
        counts = Counter(splits[song.name] for song in self.songs)
        notes = sum(len(song.notes) for song in self.songs)
        return {"songs": len(self.songs), "notes": notes, **{split: counts[split] for split in SPLITS}}


class ShardWriter:
    """Packs songs into the shards of a folder."""

    def __init__(self, folder: Path, ledger: Ledger, megabytes: float, about: dict[str, Any]) -> None:
        self.folder, self.ledger, self.about = folder, ledger, about
        self.most = megabytes * MEGABYTE
        self.pack = Pack()

    def add(self, song: Song, analysis: Analysis, split: Split | None) -> None:
        """Add a song, and write the shard that it fills."""
        self.pack.add(song, analysis, split)
        if self.pack.bytes >= self.most:
            self.flush()

    def flush(self) -> None:
        """Write the songs that wait, if any; from then on they are there for good."""
        pack, self.pack = self.pack, Pack()
        if not pack.songs:
            return
        if self.ledger.finished:
            splits = {song.name: pack.chosen.get(song.name) or split_of(song.name) for song in pack.songs}
        else:  # a corpus of a few songs has one shard, and all splits
            splits = pack.splits()
        for song, analysis in zip(pack.songs, pack.analyses, strict=True):
            if splits[song.name] == "train":
                self.ledger.measure(song, analysis.measured)
        counts = pack.write(shard_path(self.folder, self.ledger.finished), splits, vocabulary=False, **self.about)
        self.ledger.add_shard(counts)

    def close(self) -> dict[str, int]:
        """Write what waits, the index and the manifest, which makes the corpus complete; returns what it has."""
        self.flush()
        shards = self.ledger.shards()
        index = f"index-{len(shards):05}.safetensors"
        styles = write_index(self.folder, index, len(shards))
        counts = {name: sum(shard[name] for shard in shards) for name in ("songs", "notes", *SPLITS)}
        manifest = {
            "format": FOLDER_FORMAT,
            "version": VERSION,
            **self.about,
            **self.ledger.about_sources(),
            "songs": counts["songs"],
            "notes": counts["notes"],
            "index": index,
            "styles": styles,
            "attributes": [asdict(attribute) for attribute in self.ledger.vocabulary()],
            "shards": shards,
        }
        write_json(self.folder / MANIFEST, manifest)
        for old in self.folder.glob("index-*.safetensors"):
            if old.name != index:
                old.unlink()
        return counts


def write_index(folder: Path, name: str, shards: int) -> list[str]:
    """Write ids, lengths, splits and styles of the songs of all shards as arrays, see :class:`.shards.Shards`.

    Returns:
        the styles, of which the array has the numbers.
    """
    styles: dict[str, int] = {}
    parts = []
    for number in range(shards):
        about, tensors = map_corpus(shard_path(folder, number), notes=False)
        ids = [song.encode() for song in about["songs"]]
        numbered = [styles.setdefault(style, len(styles)) for style in about["styles"]]
        parts.append(
            {
                "ids.text": np.frombuffer(b"".join(ids), np.uint8),
                "ids.offsets": np.array([len(name) for name in ids], np.int64),  # lengths, so far
                "songs.num_steps": np.array(tensors["songs.num_steps"]),
                "songs.split": np.array([SPLITS.index(split) for split in about["splits"]], np.uint8),
                "songs.style": np.array(numbered, np.int32),
                "songs.flat": np.array(about["flat"], np.uint8),
            }
        )
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    arrays["ids.offsets"] = np.concatenate([[0], np.cumsum(arrays["ids.offsets"])])
    write_tensors(folder / name, arrays, {"format": INDEX_FORMAT, "version": VERSION})
    return list(styles)
