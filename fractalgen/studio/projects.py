"""The projects of a folder, and project files, in which one travels."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fractalgen.errors import UserError, shown
from fractalgen.files import writable_folder, write_json
from fractalgen.studio.project import FACTS, HISTORY, MOST_STATES, TRACES, Missing, Project, checked_name, read_facts
from fractalgen.trace import Trace

ENDING = ".fractalgen"
MAKING, GONE = ".making-", ".gone-"  # folders that are not there yet, or any more
MOST_UNPACKED = 512 << 20
_NUMBER = re.compile(r"[0-9a-f]{12}")
_TRACE = re.compile(rf"{TRACES}/(\d{{1,6}})\.trace\.npz")


class Projects:
    """All projects of a folder, which no other studio uses at the same time."""

    def __init__(self, path: str) -> None:
        """Raises UserError: the folder cannot be written to, or another studio uses it."""
        self.folder = writable_folder(path)
        self._lock, self._open = threading.RLock(), dict[str, Project]()
        self._guard = _claim(self.folder)
        for left in self.folder.glob(f"*/{TRACES}/.*.npz"):  # of jobs that were cut off
            left.unlink(missing_ok=True)
        for folder in (*self.folder.glob(f"{MAKING}*"), *self.folder.glob(f"{GONE}*")):
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Leave the folder to others."""
        self._guard.close()

    def all(self) -> list[Project]:
        """All that can be read, the newest first."""
        found = []
        for entry in self.folder.iterdir():
            if _NUMBER.fullmatch(entry.name):
                try:
                    found.append(self.get(entry.name))
                except (UserError, OSError):
                    continue
        return sorted(found, key=lambda project: project.modified, reverse=True)

    def get(self, number: str) -> Project:
        """A project.

        Raises:
            Missing: there is none.
            UserError: it is damaged.
        """
        with self._lock:
            if number not in self._open:
                folder = self.folder / number
                if not _NUMBER.fullmatch(number) or not folder.is_dir():
                    raise Missing("no such project")
                self._open[number] = Project(folder)
            return self._open[number]

    def create(self, name: str) -> Project:
        """A new project."""
        name = checked_name(name)
        with self._lock, self._made() as folder:
            Project.create(folder, name)
        return self.get(folder.name)

    def delete(self, number: str) -> None:
        """Remove a project with all of its states."""
        with self._lock:
            project = self.get(number)
            with project.lock:
                gone = self.folder / f"{GONE}{number}"
                os.replace(project.folder, gone)
                del self._open[number]
            shutil.rmtree(gone, ignore_errors=True)

    def unpack(self, file: BinaryIO) -> Project:
        """A new project from a project file; everything in it is checked.

        Raises:
            UserError: it is none, damaged, or larger than any project.
        """
        try:
            with zipfile.ZipFile(file) as archive, self._lock, self._made() as folder:
                _extract(archive, folder)
        except UserError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"not a project file ({shown(str(error) or type(error).__name__, 80)})") from error
        return self.get(folder.name)

    @contextmanager
    def _made(self) -> Iterator[Path]:
        """The folder of a new project, which is in its place only if the block succeeds."""
        name = secrets.token_hex(6)
        with tempfile.TemporaryDirectory(prefix=MAKING, dir=self.folder) as temporary:
            made = Path(temporary) / name
            made.mkdir()
            yield made
            os.replace(made, self.folder / name)


def _extract(archive: zipfile.ZipFile, folder: Path) -> None:
    """The files of a project file, into an empty folder, each of them checked.

    Raises:
        UserError: a file that does not belong there, or that is damaged or too large.
    """
    members = {member.filename: member for member in archive.infolist()}
    allowed = all(name in (FACTS, HISTORY) or _TRACE.fullmatch(name) for name in members)
    if not allowed or len(members) < len(archive.infolist()) or not {FACTS, HISTORY} <= members.keys():
        raise UserError("not a project file (other files are in it)")
    if (size := sum(member.file_size for member in members.values())) > MOST_UNPACKED:
        raise UserError(f"{size:,} bytes of history, more than {MOST_UNPACKED:,}")
    (folder / TRACES).mkdir()
    for name, member in members.items():
        with archive.open(member) as source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target)
    write_json(folder / FACTS, read_facts(folder / FACTS))
    project = Project(folder)
    if len(project.states) > MOST_STATES:
        raise UserError(f"{len(project.states):,} states, more than {MOST_STATES:,}")
    for state in project.states:
        project.document(state)
        if (trace := project.trace(state)) is not None:
            Trace.load(trace)
    for name in members:
        if (found := _TRACE.fullmatch(name)) and int(found[1]) not in project.states:
            raise UserError(f"not a project file ({name} belongs to no state)")


def _claim(folder: Path) -> BinaryIO:
    """A lock on the folder that ends with this process.

    Raises:
        UserError: another process has it.
    """
    guard = (folder / ".lock").open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(guard.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        guard.close()
        raise UserError(f"--output_dir {folder}: another studio uses this folder") from None
    return guard
