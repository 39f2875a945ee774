"""The packed corpus: all songs of a collection in one memory-mapped, self-describing safetensors file.

A note takes 9 bytes (columns ``notes.*``); ``songs.*`` and the tables of tempi, meters, keys and chords are cut into
songs by offsets.  The metadata entry ``fractalgen`` is JSON: format, version, song ids, split and style of each song,
the vocabulary of attributes, provenance, licence, settings, and the files that were left out with the reason.  Files
without keys, chords, voices, styles and vocabulary can be read: what is not there is computed, and styles and voices
are unknown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fractalgen.data import attributes
from fractalgen.data.song import Song
from fractalgen.errors import UserError, quoted, reason, shown
from fractalgen.files import ASSETS, replacing
from fractalgen.music import MAX_STEPS
from fractalgen.music.chord_estimate import estimate_chords
from fractalgen.music.chords import CODES, Chords
from fractalgen.music.keys import Keys, key_changes
from fractalgen.music.labels import KEYS, Attribute
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import NOTE, PITCHES, Meters, Notes, Tempos, grid_steps, tokens_from_notes

FORMAT, VERSION = "fractalgen-corpus", 1
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_DTYPES = {"U8": np.uint8, "U16": np.uint16, "I32": np.int32, "F64": np.float64}
_METERS = "meters.step_numerator_denominator"
_COLUMNS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "notes.start": (np.int32, ()),
    "notes.duration": (np.uint16, ()),
    "notes.pitch": (np.uint8, ()),
    "notes.velocity": (np.uint8, ()),
    "songs.notes": (np.int32, ()),
    "songs.num_steps": (np.int32, ()),
    "songs.tempos": (np.int32, ()),
    "songs.meters": (np.int32, ()),
    "songs.keys": (np.int32, ()),
    "tempos.step": (np.int32, ()),
    "tempos.quarters_per_minute": (np.float64, ()),
    _METERS: (np.int32, (3,)),
    "keys.step": (np.int32, ()),
    "keys.key": (np.uint8, ()),
    "songs.chords": (np.int32, ()),
    "chords.step": (np.int32, ()),
    "chords.code": (np.uint16, ()),
    "notes.voice": (np.uint8, ()),
}
_KEYS = ("songs.keys", "keys.step", "keys.key")  # there, or all computed
_CHORDS = ("songs.chords", "chords.step", "chords.code")  # the same
_OPTIONAL = (*_KEYS, *_CHORDS, "notes.voice")
_TABLES = {
    "songs.notes": ("notes.start", "notes.duration", "notes.pitch", "notes.velocity"),
    "songs.tempos": ("tempos.step", "tempos.quarters_per_minute"),
    "songs.meters": (_METERS,),
    "songs.keys": ("keys.step", "keys.key"),
    "songs.chords": ("chords.step", "chords.code"),
}
"""The columns that a table of offsets cuts into songs."""


def write_corpus(
    songs: Sequence[Song],
    splits: Mapping[str, Split],
    path: Path,
    *,
    steps_per_quarter: int = 4,
    velocity_bins: int = 32,
    **about: Any,
) -> None:
    """Pack songs into one file that appears whole or not at all; ``about`` (plain data) joins the metadata."""
    from safetensors.numpy import save

    notes = np.concatenate([np.zeros(0, NOTE), *(song.notes for song in songs)])
    tempos = [event for song in songs for event in song.tempos]
    meters = [event for song in songs for event in song.meters]
    labelled = tqdm(songs, "keys", unit="song", disable=None)
    keys = [key_changes(song.tokens(), steps_per_quarter) for song in labelled]
    harmonised = tqdm(songs, "chords", unit="song", disable=None)
    chords = [song.chords or estimated_chords(song, steps_per_quarter) for song in harmonised]
    voices = [np.zeros(len(song.notes), np.uint8) if song.voices is None else song.voices for song in songs]
    training = tqdm([song for song in songs if splits[song.name] == "train"], "attributes", unit="song", disable=None)
    vocabulary = attributes.vocabulary(training, steps_per_quarter, velocity_bins)
    tensors = {
        "notes.start": notes["start"],
        "notes.duration": notes["duration"].astype(np.uint16),
        "notes.pitch": notes["pitch"],
        "notes.velocity": notes["velocity"],
        "songs.notes": _offsets(len(song.notes) for song in songs),
        "songs.num_steps": np.array([song.num_steps for song in songs], np.int32),
        "songs.tempos": _offsets(len(song.tempos) for song in songs),
        "songs.meters": _offsets(len(song.meters) for song in songs),
        "tempos.step": np.array([step for step, _ in tempos], np.int32),
        "tempos.quarters_per_minute": np.array([tempo for _, tempo in tempos], np.float64),
        "meters.step_numerator_denominator": np.array(meters, np.int32).reshape(-1, 3),
        "songs.keys": _offsets(len(changes) for changes in keys),
        "keys.step": np.array([step for changes in keys for step, _ in changes], np.int32),
        "keys.key": np.array([KEYS.index(key) for changes in keys for _, key in changes], np.uint8),
        "songs.chords": _offsets(len(changes) for changes in chords),
        "chords.step": np.array([step for changes in chords for step, _ in changes], np.int32),
        "chords.code": np.array([code for changes in chords for _, code in changes], np.uint16),
        "notes.voice": np.concatenate([np.zeros(0, np.uint8), *voices]).astype(np.uint8),
    }
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "steps_per_quarter": steps_per_quarter,
        "velocity_bins": velocity_bins,
        "songs": [song.name for song in songs],
        "splits": [splits[song.name] for song in songs],
        "styles": [song.style for song in songs],
        "flat": [song.flat for song in songs],
        "attributes": [asdict(attribute) for attribute in vocabulary],
        **about,
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(arrays, metadata={"fractalgen": json.dumps(metadata)}))


def estimated_chords(song: Song, steps_per_quarter: int) -> Chords:
    """Changes of chord of a song that nobody annotated, by :func:`~fractalgen.music.chord_estimate.estimate_chords`."""
    beats = grid_steps(song.meters, song.num_steps, steps_per_quarter, "beat")
    codes = estimate_chords(song.tokens(), beats, grid_steps(song.meters, song.num_steps, steps_per_quarter)).tolist()
    return tuple(
        (step, code)
        for beat, (step, code) in enumerate(zip(beats.tolist(), codes, strict=True))
        if not beat or code != codes[beat - 1]
    )


def _offsets(lengths: Any) -> npt.NDArray[np.int32]:
    return np.cumsum([0, *lengths]).astype(np.int32)


class Corpus:
    """A packed corpus, memory-mapped; it travels to worker processes as a path."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.metadata, self._tensors = _map(self.path)
        self.song_ids: list[str] = self.metadata["songs"]
        self.splits: list[Split] = self.metadata["splits"]
        self.steps_per_quarter: int = self.metadata["steps_per_quarter"]
        self.velocity_bins: int = self.metadata["velocity_bins"]
        self._keys: dict[int, Keys] = {}
        self._chords: dict[int, Chords] = {}

    @classmethod
    def open(cls, path_or_name: str | os.PathLike[str]) -> Corpus:
        """Open a packed corpus by path, or an embedded one by name (``chorales``).

        Raises ``UserError`` when it is missing, not a corpus, damaged, or of a newer version.
        """
        path = Path(path_or_name)
        embedded = ASSETS / f"{path_or_name}.safetensors"
        if not path.is_file() and path.name == str(path_or_name) and embedded.exists():
            path = embedded
        return cls(path)

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        return Corpus, (self.path,)

    def __len__(self) -> int:
        return len(self.song_ids)

    def __repr__(self) -> str:
        return f"Corpus({str(self.path)!r}, {len(self)} songs, {len(self._tensors['notes.pitch'])} notes)"

    def indices(self, split: Split) -> list[int]:
        """Songs of a split."""
        if split not in SPLITS:
            raise UserError(f"split {split!r}: one of {', '.join(SPLITS)}")
        return [index for index, name in enumerate(self.splits) if name == split]

    def num_steps(self, index: int) -> int:
        """Length of a song in steps: whole bars."""
        return int(self._tensors["songs.num_steps"][index])

    def notes(self, index: int) -> Notes:
        """Notes of a song (pitch, start, duration, velocity bin), sorted by start, then pitch."""
        part = self._part("songs.notes", index)
        notes = np.zeros(part.stop - part.start, NOTE)
        for name in ("pitch", "start", "duration", "velocity"):
            notes[name] = self._tensors[f"notes.{name}"][part]
        return notes

    def tempos(self, index: int) -> Tempos:
        """Tempo changes (step, quarter notes a minute) of a song."""
        part = self._part("songs.tempos", index)
        steps, values = self._tensors["tempos.step"][part], self._tensors["tempos.quarters_per_minute"][part]
        return tuple(zip(steps.tolist(), values.tolist(), strict=True))

    def meters(self, index: int) -> Meters:
        """Meter changes (step, numerator, denominator) of a song."""
        rows = self._tensors["meters.step_numerator_denominator"][self._part("songs.meters", index)]
        return tuple((step, numerator, denominator) for step, numerator, denominator in rows.tolist())

    def keys(self, index: int) -> Keys:
        """Key changes (step, key) of a song, as estimated by :func:`fractalgen.music.keys.key_changes`."""
        if index not in self._keys:
            if "songs.keys" in self._tensors:
                part = self._part("songs.keys", index)
                steps, numbers = self._tensors["keys.step"][part].tolist(), self._tensors["keys.key"][part].tolist()
                self._keys[index] = tuple((step, KEYS[key]) for step, key in zip(steps, numbers, strict=True))
            else:
                self._keys[index] = key_changes(self.tokens(index), self.steps_per_quarter)
        return self._keys[index]

    def chords(self, index: int) -> Chords:
        """Changes of chord (step, code) of a song: annotated, or as :func:`estimated_chords` finds them."""
        if index not in self._chords:
            if "songs.chords" in self._tensors:
                part = self._part("songs.chords", index)
                steps, codes = (self._tensors[name][part].tolist() for name in ("chords.step", "chords.code"))
                self._chords[index] = tuple(zip(steps, codes, strict=True))
            else:
                self._chords[index] = estimated_chords(self.song(index), self.steps_per_quarter)
        return self._chords[index]

    def voices(self, index: int) -> npt.NDArray[np.uint8]:
        """The voice of each note of a song, see :mod:`fractalgen.music.voices`; 0 where nothing says it."""
        part = self._part("songs.notes", index)
        if "notes.voice" not in self._tensors:
            return np.zeros(part.stop - part.start, np.uint8)
        return np.array(self._tensors["notes.voice"][part])

    def style(self, index: int) -> str:
        """Style label of a song; empty where there is none."""
        return self.metadata["styles"][index] if "styles" in self.metadata else ""

    def flat(self, index: int) -> bool:
        """Whether the velocities of a song mean nothing: its file has the same one everywhere, say."""
        return bool(self.metadata["flat"][index]) if "flat" in self.metadata else False

    @cached_property
    def vocabulary(self) -> tuple[Attribute, ...]:
        """The attributes by which the training songs differ, see :func:`fractalgen.data.attributes.vocabulary`."""
        if "attributes" in self.metadata:
            return tuple(Attribute.from_dict(data) for data in self.metadata["attributes"])
        training = tqdm(self.indices("train"), "attributes", unit="song", disable=None)
        return attributes.vocabulary(map(self.song, training), self.steps_per_quarter, self.velocity_bins)

    def song(self, index: int) -> Song:
        """A song as it went into the corpus."""
        return Song(
            self.song_ids[index],
            self.notes(index),
            self.num_steps(index),
            self.tempos(index),
            self.meters(index),
            self.style(index),
            self.chords(index) if "songs.chords" in self._tensors else (),
            self.voices(index),
            self.flat(index),
        )

    def downbeats(self, index: int) -> npt.NDArray[np.int32]:
        """Steps at which a bar of a song begins."""
        return grid_steps(self.meters(index), self.num_steps(index), self.steps_per_quarter, "bar")

    def beats(self, index: int) -> npt.NDArray[np.int32]:
        """Steps at which a beat of a song begins."""
        return grid_steps(self.meters(index), self.num_steps(index), self.steps_per_quarter, "beat")

    def tokens(self, index: int, start: int = 0, stop: int | None = None) -> npt.NDArray[np.uint8]:
        """Tokens (128, stop - start) of an excerpt; past the end of the song there is silence."""
        return tokens_from_notes(self.notes(index), start, self.num_steps(index) if stop is None else stop)

    def roll(self, index: int) -> PianoRoll:
        """A whole song."""
        return PianoRoll(
            self.tokens(index), self.steps_per_quarter, self.velocity_bins, self.tempos(index), self.meters(index)
        )

    def _part(self, offsets: str, index: int) -> slice:
        return slice(int(self._tensors[offsets][index]), int(self._tensors[offsets][index + 1]))


def _map(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Metadata and memory-mapped tensors; the safetensors library would copy each of them into memory."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ValueError("no safetensors header")
            header = json.loads(file.read(length))
        metadata = json.loads(header.pop("__metadata__")["fractalgen"])
        found, version = metadata.get("format"), metadata.get("version", 0)
    except OSError as error:
        raise UserError(f"corpus {path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"corpus {path}: not a packed corpus (make one with `fractalgen prepare`)") from error
    if found != FORMAT:
        raise UserError(f"corpus {path}: its format is {quoted(found)}, not {FORMAT!r}")
    if version != VERSION:
        raise UserError(f"corpus {path}: its version is {shown(version)}, this program reads {VERSION}")
    try:
        if size != 8 + length + max(entry["data_offsets"][1] for entry in header.values()):
            raise UserError(f"truncated, {size} bytes")
        raw = np.memmap(path, np.uint8, mode="r", offset=8 + length)
        tensors = {
            name: raw[slice(*entry["data_offsets"])].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in header.items()
        }
        damage = _damage(metadata, tensors)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        damage = reason(error) if isinstance(error, UserError) else f"{type(error).__name__}: {reason(error)}"
    if damage:
        raise UserError(f"corpus {path}: damaged ({damage}); prepare it again")
    return metadata, tensors


def _damage(about: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> str:
    """What does not fit together in a corpus, or nothing: after this every song of it can be read."""
    for name, (dtype, width) in _COLUMNS.items():
        if name not in tensors:
            if name not in _OPTIONAL:
                return f"{name} is missing"
        elif tensors[name].dtype != dtype or tensors[name].shape[1:] != width or not tensors[name].ndim:
            return f"{name} is {tensors[name].dtype} {tensors[name].shape}"
    for what, names in (("keys", _KEYS), ("chords", _CHORDS)):
        if any(name in tensors for name in names) and not all(name in tensors for name in names):
            return f"some of the {what} are missing"
    songs = about["songs"]
    if not isinstance(songs, list) or len(tensors["songs.num_steps"]) != len(songs):
        return "its songs are not those of its tables"
    for name, kind in (("songs", str), ("splits", str), ("styles", str), ("flat", bool)):
        values = about.get(name, [kind()] * len(songs))
        if not isinstance(values, list) or len(values) != len(songs) or not all(type(x) is kind for x in values):
            return f"{name}: not a {kind.__name__} for each song"
    if not set(about["splits"]) <= set(SPLITS):
        return "a split that there is not"
    for name, highest in (("steps_per_quarter", 480), ("velocity_bins", 64)):
        if type(about[name]) is not int or not 1 <= about[name] <= highest:
            return f"{name} is not a number from 1 to {highest}"
    steps = tensors["songs.num_steps"]
    if len(steps) and not 1 <= steps.min() <= steps.max() <= MAX_STEPS:
        return f"a song of {steps.min()} or {steps.max()} steps"
    for table, columns in _TABLES.items():
        if table not in tensors:
            continue
        offsets, rows = tensors[table].astype(np.int64), len(tensors[columns[0]])
        if len(offsets) != len(songs) + 1 or offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
            return f"{table} does not cut {rows} rows into {len(songs)} songs"
        if any(len(tensors[name]) != rows for name in columns):
            return f"the columns {', '.join(columns)} differ in length"
    notes = {name: tensors[f"notes.{name}"].astype(np.int64) for name in ("start", "duration", "pitch", "velocity")}
    ends = np.repeat(steps, np.diff(tensors["songs.notes"]))
    outside = (notes["start"] < 0) | (notes["duration"] < 1) | (notes["start"] + notes["duration"] > ends)
    if (outside | (notes["pitch"] >= PITCHES) | (notes["velocity"] >= about["velocity_bins"])).any():
        return "a note lies outside its song, the pitches or the velocity bins"
    for table, at in (("songs.tempos", tensors["tempos.step"]), ("songs.meters", tensors[_METERS][:, 0])):
        offsets = tensors[table]
        back = np.flatnonzero(np.diff(at) < 0) + 1
        if (np.diff(offsets) < 1).any() or at[offsets[:-1]].any() or not np.isin(back, offsets).all():
            return f"{table}: not from the first step of each song on"
    tempos, (beats, units) = tensors["tempos.quarters_per_minute"], tensors[_METERS][:, 1:].T
    microseconds = np.rint(60e6 / np.clip(tempos, 1, 1e9))  # a quarter
    if not ((microseconds >= 1) & (microseconds < 1 << 24)).all():
        return "a tempo that MIDI does not know"
    if not ((beats >= 1) & (beats <= 255) & (units >= 1) & (units <= 64) & (units & (units - 1) == 0)).all():
        return "a meter that there is not"
    if "keys.key" in tensors and tensors["keys.key"].max(initial=0) >= len(KEYS):
        return "a key that there is not"
    if "chords.code" in tensors and tensors["chords.code"].max(initial=0) >= CODES:
        return "a chord that there is not"
    if "notes.voice" in tensors and len(tensors["notes.voice"]) != len(notes["pitch"]):
        return "notes.voice: not one for each note"
    for attribute in about.get("attributes", ()):
        Attribute.from_dict(attribute)
    return ""
