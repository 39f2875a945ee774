"""The file of a packed corpus: its columns, and how it is mapped into memory and checked.

A note takes 9 bytes (columns ``notes.*``); ``songs.*`` and the tables of tempi, meters, keys and chords are cut into
songs by offsets, int32 or, where that is too small, int64.  The metadata entry ``fractalgen`` is JSON: format, version,
song ids, split and style of each song, the vocabulary of attributes, provenance, licence, settings, and the files that
were left out with the reason.  Files without keys, chords, voices, styles and vocabulary can be read: what is not there
is computed, and styles and voices are unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError, quoted, reason, shown
from fractalgen.music import MAX_STEPS
from fractalgen.music.chords import CODES
from fractalgen.music.labels import KEYS, Attribute
from fractalgen.music.tokens import PITCHES, Notes

FORMAT, VERSION = "fractalgen-corpus", 1
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_DTYPES = {"U8": np.uint8, "U16": np.uint16, "I32": np.int32, "I64": np.int64, "F64": np.float64}
_METERS = "meters.step_numerator_denominator"
_TABLES = {
    "songs.notes": ("notes.start", "notes.duration", "notes.pitch", "notes.velocity"),
    "songs.tempos": ("tempos.step", "tempos.quarters_per_minute"),
    "songs.meters": (_METERS,),
    "songs.keys": ("keys.step", "keys.key"),
    "songs.chords": ("chords.step", "chords.code"),
}
"""The columns that a table of offsets cuts into songs."""
_STEPS = ("notes.start", "tempos.step", "keys.step", "chords.step", _METERS, "songs.num_steps")
_COLUMNS: dict[str, type[np.generic]] = {
    **dict.fromkeys((*_TABLES, *_STEPS), np.int32),  # offsets may be int64
    **dict.fromkeys(("notes.pitch", "notes.velocity", "notes.voice", "keys.key"), np.uint8),
    **dict.fromkeys(("notes.duration", "chords.code"), np.uint16),
    "tempos.quarters_per_minute": np.float64,
}
_KEYS = ("songs.keys", *_TABLES["songs.keys"])  # there, or all computed
_CHORDS = ("songs.chords", *_TABLES["songs.chords"])  # the same
_OPTIONAL = (*_KEYS, *_CHORDS, "notes.voice")


def map_file(path: Path, format: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Metadata and memory-mapped tensors; the safetensors library would copy each of them into memory.

    Raises:
        UserError: it cannot be read, is truncated, or of another format or version.
    """
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
    if found != format:
        raise UserError(f"corpus {path}: its format is {quoted(found)}, not {format!r}")
    if version != VERSION:
        raise UserError(f"corpus {path}: its version is {shown(version)}, this program reads {VERSION}")
    with damage_told(path):
        if size != 8 + length + max(entry["data_offsets"][1] for entry in header.values()):
            raise UserError(f"truncated, {size} bytes")
        raw = np.memmap(path, np.uint8, mode="r", offset=8 + length)
        tensors = {
            name: raw[slice(*entry["data_offsets"])].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in header.items()
        }
    return metadata, tensors


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Whatever a file that does not fit together provokes becomes one line."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        damage = reason(error) if isinstance(error, UserError) else f"{type(error).__name__}: {reason(error)}"
        raise UserError(f"corpus {path}: damaged ({damage}); prepare it again") from error


def map_corpus(path: Path, notes: bool = True) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Metadata and memory-mapped columns of a corpus, after a check that all its songs can be read.

    Without ``notes`` these are not checked, so that time and memory depend on the number of songs only.

    Raises:
        UserError: it is no corpus, or damaged.
    """
    metadata, tensors = map_file(path, FORMAT)
    with damage_told(path):
        if damage := _damage(metadata, tensors):
            raise UserError(damage)
        if notes:
            ends = np.repeat(tensors["songs.num_steps"], np.diff(tensors["songs.notes"]))
            check_notes(
                {name: tensors[f"notes.{name}"] for name in ("start", "duration", "pitch", "velocity")},
                ends,
                metadata["velocity_bins"],
            )
    return metadata, tensors


def check_notes(notes: Mapping[str, npt.NDArray[Any]] | Notes, ends: Any, velocity_bins: int) -> None:
    """Refuse notes outside of their song, which lasts until ``ends``, one number or one for each note."""
    start, duration = (np.asarray(notes[name], np.int64) for name in ("start", "duration"))
    outside = (start < 0) | (duration < 1) | (start + duration > ends)
    if (outside | (notes["pitch"] >= PITCHES) | (notes["velocity"] >= velocity_bins)).any():
        raise UserError("a note lies outside its song, the pitches or the velocity bins")


def _damage(about: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> str:
    """What does not fit together in the tables of a corpus, or nothing."""
    for name, dtype in _COLUMNS.items():
        if name not in tensors:
            if name not in _OPTIONAL:
                return f"{name} is missing"
        elif (
            tensors[name].dtype not in (dtype, *((np.int64,) if name in _TABLES else ()))
            or tensors[name].shape[1:] != ((3,) if name == _METERS else ())
            or not tensors[name].ndim
        ):
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
    if damage := settings_damage(about):
        return damage
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
    for name, codes, what in (("keys.key", len(KEYS), "key"), ("chords.code", CODES, "chord")):
        if name in tensors and tensors[name].max(initial=0) >= codes:
            return f"a {what} that there is not"
    if "notes.voice" in tensors and len(tensors["notes.voice"]) != len(tensors["notes.pitch"]):
        return "notes.voice: not one for each note"
    return ""


def settings_damage(about: dict[str, Any]) -> str:
    """What is wrong with the metadata that is about all songs of a corpus, or nothing."""
    for name, highest in (("steps_per_quarter", 480), ("velocity_bins", 64)):
        if type(about[name]) is not int or not 1 <= about[name] <= highest:
            return f"{name} is not a number from 1 to {highest}"
    for attribute in about.get("attributes", ()):
        Attribute.from_dict(attribute)
    return ""
