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
from typing import Any, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

from fractalgen.data.corpus_file import SPLITS, VERSION, Split, damage_told, map_corpus, map_file, settings_damage
from fractalgen.errors import UserError, reason, shown
from fractalgen.music import MAX_STEPS

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

    def __getitem__(self, index: Any) -> Any:
        """A value; of a slice, its values."""
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

    def __getitem__(self, index: Any) -> Any:
        """A text; of a slice, a list of its texts."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.text[self.offsets[index] : self.offsets[index + 1]].tobytes().decode(errors="replace")


class Shards:
    """The shards of a folder behind the numbers of their songs.

    Raises:
        UserError: the folder is no corpus, not finished, damaged, or of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        with damage_told(folder):
            if damage := settings_damage(self.manifest):
                raise UserError(damage)
            self.first = [0, *accumulate(int(shard["songs"]) for shard in self.manifest["shards"])]
            styles, index = self.manifest["styles"], folder / str(self.manifest["index"])
        _, arrays = map_file(index, INDEX_FORMAT)
        with damage_told(index):
            if damage := _index_damage(arrays, self.first[-1], styles):
                raise UserError(damage)
            self.song_ids = Names(arrays["ids.text"], arrays["ids.offsets"])
            self.splits: Coded[Split] = Coded(arrays["songs.split"], SPLITS)
            self.styles: Coded[str] = Coded(arrays["songs.style"], styles)
            self.flat, self.lengths = arrays["songs.flat"], arrays["songs.num_steps"]
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


def _index_damage(arrays: dict[str, npt.NDArray[Any]], songs: int, styles: Any) -> str:
    """What does not fit together in the index of so many songs, or nothing."""
    if not isinstance(styles, list) or not all(isinstance(style, str) for style in styles):
        return f"the styles in {MANIFEST} are no list of names"
    for name, lowest, highest in (
        ("songs.split", 0, len(SPLITS) - 1),
        ("songs.style", 0, len(styles) - 1),
        ("songs.flat", 0, 1),
        ("songs.num_steps", 1, MAX_STEPS),
    ):
        if arrays[name].shape != (songs,):
            return f"{name} is {arrays[name].shape}, {MANIFEST} says {songs} songs"
        if songs and not lowest <= arrays[name].min() <= arrays[name].max() <= highest:
            return f"{name} is not from {lowest} to {highest}"
    offsets = arrays["ids.offsets"]
    if offsets.shape != (songs + 1,) or offsets[0] != 0 or offsets[-1] != len(arrays["ids.text"]):
        return f"ids.offsets does not cut ids.text into {songs} names"
    if (offsets[1:] < offsets[:-1]).any():
        return "ids.offsets goes back"
    return ""


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
