"""A corpus in a folder, as it is read: shards that are mapped when a song of them is needed, and an index of all songs.

``manifest.json`` lists the shards, each a packed corpus of its own, and says what is true of all.  It names the index,
``index-*.safetensors``, which has ids, lengths, splits and styles of all songs as arrays, so that a corpus of a million
songs is opened at once.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from fractalgen.data.corpus_file import SPLITS, VERSION, Split, damage_told, map_corpus, map_file
from fractalgen.errors import UserError, reason, shown

MANIFEST, FOLDER_FORMAT, INDEX_FORMAT = "manifest.json", "fractalgen-corpus-folder", "fractalgen-corpus-index"
OPEN = 256  # shards that are mapped at a time
Value = TypeVar("Value")


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"shard-{number:05}.safetensors"


class Coded(Sequence[Value], Generic[Value]):
    """Values out of a few, kept as numbers."""

    def __init__(self, codes: npt.NDArray[Any], values: Sequence[Value]) -> None:
        self.codes, self.values = codes, values

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, index: int) -> Value: ...

    @overload
    def __getitem__(self, index: slice) -> Coded[Value]: ...

    def __getitem__(self, index: int | slice) -> Value | Coded[Value]:
        if isinstance(index, slice):
            return Coded(self.codes[index], self.values)
        return self.values[self.codes[index]]

    def count(self, value: Any) -> int:
        """How often a value occurs."""
        return int((self.codes == self.values.index(value)).sum()) if value in self.values else 0


class Names(Sequence[str]):
    """Texts one after the other in an array of bytes."""

    def __init__(self, text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        self.text, self.offsets = text, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.text[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()


class Shards:
    """The shards of a folder behind the numbers of their songs.

    Raises:
        UserError: the folder is no corpus, not finished, damaged, or of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        with damage_told(folder):
            shards, styles = self.manifest["shards"], self.manifest["styles"]
            index = folder / str(self.manifest["index"])
            _, arrays = map_file(index, INDEX_FORMAT)
            self.song_ids = Names(arrays["ids.text"], arrays["ids.offsets"])
            self.splits: Coded[Split] = Coded(arrays["songs.split"], SPLITS)
            self.styles: Coded[str] = Coded(arrays["songs.style"], styles)
            self.flat, self.lengths = arrays["songs.flat"], arrays["songs.num_steps"]
            self.first = [0, *accumulate(int(shard["songs"]) for shard in shards)]
            if {len(self.song_ids), len(self.splits), len(self.styles), len(self.flat), len(self.lengths)} != {
                self.first[-1]
            }:
                raise UserError(f"{index.name} does not list {self.first[-1]} songs")
        self._shard = lru_cache(OPEN)(self._map)  # a mapped shard costs some kilobytes

    def at(self, index: int) -> tuple[dict[str, npt.NDArray[Any]], int]:
        """The columns of the shard that has a song, and the song's number in it."""
        number = bisect_right(self.first, index) - 1
        return self._shard(number), index - self.first[number]

    def _map(self, number: int) -> dict[str, npt.NDArray[Any]]:
        path = shard_path(self.folder, number)
        metadata, tensors = map_corpus(path, notes=False)
        expected = self.first[number + 1] - self.first[number]
        if len(metadata["songs"]) != expected:
            raise UserError(f"corpus {path}: has {len(metadata['songs'])} songs, {MANIFEST} says {expected}")
        return tensors


def read_manifest(folder: Path) -> dict[str, Any]:
    """What ``manifest.json`` of a corpus says.

    Raises:
        UserError: there is none, or it is not of this format and version.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found, version = content.get("format"), content.get("version")
    except FileNotFoundError as error:
        raise UserError(
            f"corpus {folder}: cannot be read (no {MANIFEST} in it; `fractalgen prepare` writes it at its end)"
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"corpus {folder}: {MANIFEST} cannot be read ({reason(error)})") from error
    if (found, version) != (FOLDER_FORMAT, VERSION):
        raise UserError(
            f"corpus {folder}: {MANIFEST} is of format {shown(found)}, version {shown(version)}; "
            f"this program reads {FOLDER_FORMAT}, version {VERSION}"
        )
    return cast("dict[str, Any]", content)
