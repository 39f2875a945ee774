"""What is known of the files and songs that a corpus has so far, on disk beside its shards: an SQLite database.

It finds duplicates among any number of songs, and remembers which files were read, so that a run goes on where one
before it ended.  What is written becomes valid together with a finished shard, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fractalgen.config.values import as_typed
from fractalgen.data.attributes import Measured, attributes_of
from fractalgen.data.reading import Skipped, SourceFile, fingerprint, shown_name
from fractalgen.data.song import Song
from fractalgen.errors import UserError
from fractalgen.music.labels import UNITS, Attribute

MEASURED = 32_768  # training songs whose excerpts make the bins of attributes: those with the smallest hash of the id
CHANGED = "has changed since it was read: prepare into another folder to read it again"
_TABLES = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS sources (number INTEGER PRIMARY KEY, address TEXT UNIQUE, provenance TEXT, licence TEXT);
CREATE TABLE IF NOT EXISTS files (source INTEGER, name TEXT, stamp TEXT, PRIMARY KEY (source, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS songs (number INTEGER PRIMARY KEY, id TEXT UNIQUE, fingerprint BLOB);
CREATE INDEX IF NOT EXISTS contents ON songs (fingerprint);
CREATE TABLE IF NOT EXISTS told (kind TEXT, file TEXT, reason TEXT, UNIQUE (kind, file, reason));
CREATE TABLE IF NOT EXISTS measured (hash BLOB PRIMARY KEY, numbers BLOB);
CREATE TABLE IF NOT EXISTS meters (meter TEXT PRIMARY KEY, excerpts INTEGER);
CREATE TABLE IF NOT EXISTS styles (style TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, about TEXT);
"""


class Ledger:
    """The database of a folder, or one in memory that is forgotten.

    ``finished``: how many shards are there for good.

    Raises:
        sqlite3.Error: the database cannot be read or written, see :func:`database_error`.  All methods may raise it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.connection = sqlite3.connect(path or ":memory:", timeout=1, isolation_level=None)
        self.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.connection.execute("BEGIN EXCLUSIVE")
        for table in _TABLES.split(";"):
            self.connection.execute(table)
        self.finished = len(self.shards())

    def commit(self) -> None:
        """What was written so far is valid."""
        self.connection.execute("COMMIT")
        self.connection.execute("BEGIN EXCLUSIVE")

    def close(self) -> None:
        """Forget what was not committed."""
        self.connection.rollback()
        self.connection.close()

    def agree(self, settings: dict[str, Any]) -> None:
        """Keep the settings of the first run, and refuse others.

        Raises:
            UserError: names the setting and both values.
        """
        for name, value in settings.items():
            text = json.dumps(value)
            self.connection.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, text))
            (before,) = self.connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
            if before != text:
                was, wanted = as_typed(json.loads(before)), as_typed(value)
                raise UserError(f"--{name} {wanted}: the songs in {self.path and self.path.parent} have --{name} {was}")

    def source(self, address: str, provenance: str, licence: str) -> int:
        """The number of a source."""
        address, provenance = shown_name(address), shown_name(provenance)  # the table takes valid Unicode only
        self.connection.execute(
            "INSERT INTO sources (address, provenance, licence) VALUES (?, ?, ?)"
            " ON CONFLICT (address) DO UPDATE SET licence = excluded.licence",
            (address, provenance, licence),
        )
        return int(self.connection.execute("SELECT number FROM sources WHERE address = ?", (address,)).fetchone()[0])

    def about_sources(self) -> dict[str, str]:
        """Provenance and licence of all sources."""
        rows = self.connection.execute("SELECT provenance, licence FROM sources ORDER BY number").fetchall()
        provenance, licence = (" and ".join(dict.fromkeys(column)) for column in zip(*rows, strict=True))
        return {"provenance": provenance, "licence": licence}

    def knows(self, source: int, file: SourceFile) -> bool:
        """Whether a file was read already; a song that has changed since then is told.

        What was told of a file that is to be read is forgotten: of one that could not be read, or that was no song and
        has changed.
        """
        query = "SELECT stamp FROM files WHERE source = ? AND name = ?"
        found = self.connection.execute(query, (source, file.name)).fetchone()
        if found and found[0] == file.stamp:
            return True
        about = "FROM told WHERE kind = 'skipped' AND file = ? AND reason <> ?"
        row = (file.name, CHANGED)
        if found and not self.connection.execute(f"SELECT 1 {about}", row).fetchone():
            self.tell("skipped", *row)
            return True
        self.connection.execute(f"DELETE {about}", row)
        return False

    def add_file(self, source: int, file: SourceFile) -> None:
        """Remember that a file was read."""
        values = (source, file.name, file.stamp)
        self.connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", values)

    def refused(self, song: Song, keep_duplicates: bool) -> str:
        """Why a song does not join the others; empty where it does."""
        if self.connection.execute("SELECT 1 FROM songs WHERE id = ?", (song.name,)).fetchone():
            return "another file has the same id; where two sources have such files, prepare the folder above both"
        content = fingerprint(song)[:16]
        query = "SELECT id FROM songs WHERE fingerprint = ? ORDER BY number LIMIT 1"
        twin = None if keep_duplicates else self.connection.execute(query, (content,)).fetchone()
        if twin:
            return f"the same notes as {twin[0]}"
        self.connection.execute("INSERT INTO songs (id, fingerprint) VALUES (?, ?)", (song.name, content))
        return ""

    def tell(self, kind: str, file: str, reason: str) -> None:
        """Keep what a user is told of a file that was ``skipped``, or read but ``damaged``."""
        self.connection.execute("INSERT OR IGNORE INTO told VALUES (?, ?, ?)", (kind, file, reason))

    def told(self, kind: str, limit: int = -1) -> list[Skipped]:
        """What a user is told: of skipped files by name, of damaged ones as they came."""
        order = "file, rowid" if kind == "skipped" else "rowid"
        rows = self.connection.execute(
            f"SELECT file, reason FROM told WHERE kind = ? ORDER BY {order} LIMIT ?", (kind, limit)
        )
        return [Skipped(*row) for row in rows]

    def count(self, kind: str) -> int:
        """How many files are told of."""
        return int(self.connection.execute("SELECT count(*) FROM told WHERE kind = ?", (kind,)).fetchone()[0])

    def measure(self, song: Song, measured: Measured) -> None:
        """Take a training song into account for the vocabulary of attributes."""
        digest = hashlib.sha256(song.name.encode()).digest()
        numbers = np.ascontiguousarray(measured.numbers, "<f8").tobytes()
        self.connection.execute("INSERT OR REPLACE INTO measured VALUES (?, ?)", (digest, numbers))
        self.connection.execute("INSERT OR IGNORE INTO styles VALUES (?)", (song.style,))
        for meter, excerpts in measured.meters.items():
            self.connection.execute(
                "INSERT INTO meters VALUES (?, ?) ON CONFLICT (meter) DO UPDATE SET excerpts = excerpts + ?",
                (meter, excerpts, excerpts),
            )

    def vocabulary(self) -> tuple[Attribute, ...]:
        """The attributes by which the training songs differ.

        Styles and meters are counted in all of them; bins are made of up to ``MEASURED`` songs, a sample that depends
        on nothing but their ids, so that it is the same however the corpus came about.
        """
        blobs = self.connection.execute("SELECT numbers FROM measured ORDER BY hash LIMIT ?", (MEASURED,))
        numbers = np.frombuffer(b"".join(blob for (blob,) in blobs), "<f8").reshape(-1, len(UNITS))
        meters = Counter(dict(self.connection.execute("SELECT meter, excerpts FROM meters ORDER BY rowid")))
        return attributes_of(
            numbers, meters, [style for (style,) in self.connection.execute("SELECT style FROM styles")]
        )

    def add_shard(self, about: dict[str, Any]) -> None:
        """A shard is finished; forget the measures that the sample does not need any more."""
        self.connection.execute("INSERT INTO shards VALUES (?, ?)", (self.finished, json.dumps(about)))
        self.connection.execute(
            "DELETE FROM measured WHERE hash > (SELECT hash FROM measured ORDER BY hash LIMIT 1 OFFSET ?)",
            (MEASURED - 1,),
        )
        self.commit()
        self.finished += 1

    def shards(self) -> list[dict[str, Any]]:
        """What is known of each finished shard."""
        return [json.loads(about) for (about,) in self.connection.execute("SELECT about FROM shards ORDER BY number")]


def database_error(path: Path, error: sqlite3.Error) -> UserError:
    """What a user is told where the ledger at ``path`` cannot be read or written."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # extended codes say more in their other bits
        case sqlite3.SQLITE_FULL:
            what = "the disk is full"
        case sqlite3.SQLITE_BUSY:
            what = "in use by another `fractalgen prepare`"
        case _:
            what = f"cannot be written, or is damaged ({error}); prepare into another folder"
    return UserError(f"--out {path.parent}: {path.name}: {what}")
