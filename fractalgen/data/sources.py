"""The source files of a corpus: folders, archives and tables of them, here or at any address that fsspec knows.

Files come in the order of their paths, one after the other.  A folder is listed first.  Archives (``.tar``, packed or
not, ``.zip``) and tables (``.parquet``) are read in place, as the folders that they stand for.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import fsspec

from fractalgen.data.reading import BEAT_MAP, MOST_BYTES, Skipped, SourceFile, file_count, shown_name
from fractalgen.errors import UserError, missing, reason
from fractalgen.music.musicxml import SCORE_ENDINGS

MIDI_ENDINGS = (".mid", ".midi", ".kar", ".rmi", ".smf")  # each also packed: .mid.gz
SCORES = tuple(ending for ending in SCORE_ENDINGS if ending != ".xml")  # which may be anything in a folder
OTHER_ENDINGS = (".abc", ".gp", ".gp3", ".gp4", ".gp5", ".gpx", ".mscx", ".mscz", ".mus", ".sib")
UNPACKERS: dict[str, Any] = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""What opens a tar archive by the end of its name; tarfile's own takes the end of a truncated file for its end."""
ARCHIVE_ENDINGS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip")
UNKNOWN_ARCHIVES = (".7z", ".rar", ".tar.zst")
TABLE_ENDINGS = (".parquet",)
PACKED = (*ARCHIVE_ENDINGS, *TABLE_ENDINGS)
CONTENTS = ("music", "midi", "content", "bytes", "file")  # columns with the bytes of files, the usual names first
NAMES = ("md5", "file_name", "filename", "path", "name", "id", "__key__")  # columns with their names
UNREADABLE = (
    *(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError),
    *(zipfile.BadZipFile, RuntimeError),  # the last one: a zip archive with a password, or packed in a way of its own
)
ROWS = 64  # of a table, in memory at a time


class Entry(NamedTuple):
    """A file or an archive of a source.

    ``path``: below the root.  ``name``: for the file system.  ``size``: in bytes.  ``beat_map``: whether one makes its
    folder that of a song.
    """

    path: str
    name: str
    size: int
    stamp: str
    beat_map: bool

    @property
    def is_packed(self) -> bool:
        """Whether it has other files in it."""
        return self.path.lower().endswith(PACKED)


class Source:
    """What ``--data`` names; iterating gives a :class:`SourceFile` for each file, or why there is none.

    Raises:
        UserError: there is no such file or folder, or no library for such an address.
    """

    def __init__(self, address: str) -> None:
        self.remote = "://" in address
        try:
            self.fs, root = fsspec.url_to_fs(address if self.remote else os.path.abspath(address))
            self.root = root.rstrip("/") or "/"
            if not self.fs.exists(self.root):
                raise UserError(f"--data {address}: no such file or folder")
            self.is_folder = bool(self.fs.isdir(self.root))
        except (ImportError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"--data {address}: {reason(error)}") from error
        except Exception as error:  # each kind of address has its library, and each library its exceptions
            raise UserError(f"--data {address}: cannot be read ({reason(error)})") from error
        self.address = address if self.remote else self.root

    def __iter__(self) -> Iterator[SourceFile | Skipped]:
        before = 0
        for entry in self._entries:
            if isinstance(entry, Skipped):
                yield entry
                continue
            if entry.is_packed:
                for file in self._unpacked(entry):
                    yield file if isinstance(file, Skipped) else file._replace(end=before + file.end)
            else:
                folder = PurePosixPath(entry.path).parent
                if entry.beat_map:  # a song's own folder is no style
                    folder = folder.parent
                path, end = self._address(entry.name), before + entry.size
                yield SourceFile(shown_name(entry.path), _style(folder), entry.stamp, path, end=end)
            before += entry.size

    @cached_property
    def size(self) -> int:
        """Bytes of all files and archives."""
        return sum(entry.size for entry in self._entries if isinstance(entry, Entry))

    @cached_property
    def _entries(self) -> list[Entry | Skipped]:
        if self.is_folder:
            return list(self._walk(self.root, "", set()))
        return [_entry(self.fs.info(self.root), self.root.rpartition("/")[2])]

    def _walk(self, folder: str, below: str, seen: set[str]) -> Iterator[Entry | Skipped]:
        """Music in a folder and its sub-folders, unreadable folders, and music files in other formats, sorted.

        Links are followed, each folder once.  POP909's ``versions`` folders are left out (drafts of the same songs),
        and so are the ``._`` files of macOS.
        """
        here = folder if self.remote else os.path.realpath(folder)
        if here in seen:
            return
        seen.add(here)
        try:
            entries = self.fs.ls(folder, detail=True)
        except OSError as error:
            yield Skipped(shown_name(folder), f"folder cannot be read ({error.strerror or reason(error)})")
            return
        named = {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries}
        song = below.rpartition("/")[2] if BEAT_MAP in named and not self.remote else ""
        for name in sorted(named):
            path, entry, lower = f"{below}/{name}".lstrip("/"), named[name], name.lower()
            if entry.get("islink"):
                with suppress(OSError):  # a broken link is a file that cannot be read
                    entry = self.fs.info(entry["name"])
            if entry["type"] == "directory":
                if BEAT_MAP not in named:
                    yield from self._walk(entry["name"], path, seen)
            elif name[:2] == "._":
                continue
            elif _is_music(lower) or lower.endswith(PACKED):
                yield _entry(entry, path, bool(song) and PurePosixPath(name).stem == song)
            elif lower.endswith(OTHER_ENDINGS):
                yield Skipped(shown_name(path), "not MIDI; export it as MIDI from a notation program")
            elif lower.endswith(UNKNOWN_ARCHIVES):
                yield Skipped(shown_name(path), "an archive of a kind that is not read; unpack it")

    def _address(self, path: str) -> str:
        return str(self.fs.unstrip_protocol(path)) if self.remote else path

    def _unpacked(self, entry: Entry) -> Iterator[SourceFile | Skipped]:
        """The files of an archive or a table.  In a folder their names begin with that of the archive."""
        path = shown_name(entry.path)
        before, folder = (f"{path}/", PurePosixPath(path).parent) if self.is_folder else ("", PurePosixPath())
        number = 0
        try:
            with self.fs.open(entry.name, "rb") as stream:
                if path.lower().endswith(TABLE_ENDINGS):
                    members = _rows(stream)
                elif path.lower().endswith(".zip"):
                    members = _zipped(stream)
                else:
                    members = _members(stream, entry.size, UNPACKERS.get(PurePosixPath(path.lower()).suffix))
                for name, stamp, content, share in members:
                    number += 1
                    style = _style(folder / PurePosixPath(name).parent)
                    yield SourceFile(before + name, style, stamp, content=content, end=int(share * entry.size))
        except UserError as error:
            yield Skipped(path, str(error))
        except UNREADABLE as error:
            yield Skipped(path, f"damaged after {file_count(number)} ({reason(error)})")


def _entry(info: dict[str, Any], path: str, beat_map: bool = False) -> Entry | Skipped:
    """What fsspec tells of a file; a server may keep its size to itself."""
    if info["type"] == "other":  # reading a pipe would wait for a writer
        return Skipped(shown_name(path), "not a regular file")
    return Entry(path, info["name"], info.get("size") or 0, _stamp(info), beat_map)


def _is_music(path: str) -> bool:
    """Whether a file is music by its name; the ``._`` files of macOS are none."""
    name = path.rpartition("/")[2].lower()
    return name[:2] != "._" and (name.removesuffix(".gz").endswith(MIDI_ENDINGS) or name.endswith(SCORES))


def _inside(name: str) -> str:
    """The path of a member of an archive; no name leads out of it."""
    return posixpath.normpath(f"/{name}").lstrip("/")


def _style(folder: PurePosixPath) -> str:
    """The sub-folder of the source that a file is in, empty in the source itself."""
    return shown_name(folder.parts[0]) if folder.parts else ""


def _stamp(entry: dict[str, Any]) -> str:
    """Changes when the file does."""
    changed = next((entry[name] for name in ("mtime", "ETag", "LastModified", "created") if entry.get(name)), "")
    return f"{entry.get('size')} {changed}"


def _members(stream: Any, size: int, unpacked: Any) -> Iterator[tuple[str, str, bytes, float]]:
    """Music in a tar archive, such as Aria-MIDI's, read once from begin to end; ``unpacked`` opens a packed one.

    Each file comes with its name, its stamp, and the share of the ``size`` bytes of the archive that is read by then.
    """
    with tarfile.open(fileobj=unpacked(stream) if unpacked else stream, mode="r|") as archive:
        for member in archive:
            name = _inside(member.name)
            if member.isfile() and _is_music(name):
                file = archive.extractfile(member)
                assert file is not None
                content = file.read(MOST_BYTES)
                yield shown_name(name), f"{member.size} {member.mtime}", content, stream.tell() / max(size, 1)


def _zipped(stream: Any) -> Iterator[tuple[str, str, bytes, float]]:
    """Music in a zip archive, such as MAESTRO's, as with :func:`_members`; the share is that of its files."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        for number, member in enumerate(members, 1):
            name = _inside(member.filename)
            if not member.is_dir() and _is_music(name):
                with archive.open(member) as file:
                    content = file.read(MOST_BYTES)
                yield shown_name(name), f"{member.file_size} {member.CRC}", content, number / len(members)


def _rows(stream: Any) -> Iterator[tuple[str, str, bytes, float]]:
    """Music in a Parquet table with a column of bytes, such as GigaMIDI's, whose columns are ``md5`` and ``music``.

    The data sets of Hugging Face also keep {"bytes", "path"} in one column.  Each file comes as with :func:`_members`;
    the share is that of the rows.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing("a Parquet table", "pyarrow", "parquet") from error

    def packed(kind: Any) -> bool:
        return arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0

    try:
        table = parquet.ParquetFile(stream)
        columns = table.schema_arrow
        has = {
            column.name
            for column in columns
            if arrow.types.is_binary(column.type) or arrow.types.is_large_binary(column.type) or packed(column.type)
        }
        content = next((name for name in (*CONTENTS, *sorted(has)) if name in has), None)
        if content is None:
            raise UserError(f"no column of bytes in this table (it has {', '.join(columns.names)})")
        named = next((name for name in NAMES if name in columns.names and name != content), None)
        number = 0
        for batch in table.iter_batches(ROWS, columns=[content, *([named] if named else [])]):
            for row in batch.to_pylist():
                number += 1
                value, name = row[content], row[named] if named else None
                if isinstance(value, dict):
                    value, name = value["bytes"], name or value.get("path")
                value = value or b""
                share = number / table.metadata.num_rows
                yield shown_name(str(name or f"row {number}")), f"{len(value)}", value[:MOST_BYTES], share
    except arrow.ArrowException as error:
        raise UserError(f"not a Parquet table, or damaged ({reason(error)})") from error
