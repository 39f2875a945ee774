"""A project on disk: a folder with an append-only history that is a tree of states.

``history.jsonl`` holds a line of JSON for each state, ``{"state": {...}, "head": true, "document": {...}}`` (``head``:
whether it becomes the head at once), and for each move of the head, ``{"head": 3}``.  Every line is flushed to the disk
before its request is answered.  A last line that is torn is not there.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from fractalgen.errors import UserError, quoted, shown
from fractalgen.files import write_json
from fractalgen.studio.document import MOST_TEXT, Document

Kind = Literal["new", "edit", "import", "compose", "alternative"]
FORMAT, VERSION = "fractalgen.project", 1
HISTORY, FACTS, TRACES = "history.jsonl", "project.json", "traces"
MOST_STATES, MOST_LINE = 20_000, 8 << 20


class Missing(UserError):
    """A project or a state that does not exist."""


@dataclass(frozen=True)
class State:
    """A state of a piece; ``group``: alternatives of one job share it; ``time``: seconds since 1970."""

    id: int
    parent: int | None
    label: str
    kind: Kind
    time: float
    group: int | None = None

    @classmethod
    def from_json(cls, data: Any, known: Iterable[int]) -> State:
        """From plain data.

        Raises:
            UserError: it is damaged.
        """
        try:
            state = cls(**data)
        except TypeError:
            raise UserError(f"history: no state: {shown(data)}") from None
        numbers = [number for number in (state.parent, state.group) if number is not None]
        right = all(type(number) is int and number >= 0 for number in (state.id, *numbers))
        right &= isinstance(state.label, str) and len(state.label) <= 4 * MOST_TEXT and state.kind in get_args(Kind)
        right &= type(state.time) in (int, float) and (state.parent is None or state.parent in known)
        if not right:
            raise UserError(f"history: no state: {shown(data)}")
        return state


class Project:
    """A project; documents are read from the disk when they are asked for.  All methods may be called by any thread."""

    def __init__(self, folder: Path) -> None:
        """Open the project in a folder.

        Raises:
            UserError: it is damaged.
        """
        self.folder, self.lock = folder, threading.RLock()
        self.states: dict[int, State] = {}
        self.head = 0
        self._places: dict[int, tuple[int, int]] = {}  # of each state's line: first byte, length
        self._latest: dict[int, int] = {}  # the child of each state that was visited last
        self._facts = read_facts(folder / FACTS)
        self._size = 0
        self._counts = (-1, 0, 0)
        for line, place in _lines(folder / HISTORY):
            self._replay(line, place)
            self._size = sum(place)
        if not self.states:
            raise UserError(f"{folder}: a project without a state")

    @staticmethod
    def create(folder: Path, name: str) -> None:
        """Write a new project with one state, the empty piece."""
        (folder / TRACES).mkdir(parents=True)
        write_json(folder / FACTS, {"format": FORMAT, "version": VERSION, "name": name, "created": time.time()})
        line = {"state": asdict(State(0, None, "new", "new", time.time())), "head": True}
        line["document"] = Document(0).to_json()
        with (folder / HISTORY).open("wb") as file:
            _append(file, line)

    @property
    def id(self) -> str:
        """Its name in addresses."""
        return self.folder.name

    @property
    def name(self) -> str:
        """What its owner calls it."""
        return str(self._facts["name"])

    def rename(self, name: str) -> None:
        """Call it otherwise."""
        with self.lock:
            self._facts["name"] = checked_name(name)
            write_json(self.folder / FACTS, self._facts)

    @property
    def modified(self) -> float:
        """Seconds since 1970 at which the history grew last."""
        return (self.folder / HISTORY).stat().st_mtime

    @property
    def redo(self) -> int | None:
        """The child of the head that was visited last."""
        return self._latest.get(self.head)

    def counts(self) -> tuple[int, int]:
        """Bars and notes of the piece."""
        if self._counts[0] != self.head:
            document = self.document(self.head)
            self._counts = self.head, document.bars, len(document.notes)
        return self._counts[1:]

    def document(self, state: int) -> Document:
        """The piece in a state.

        Raises:
            Missing: there is no such state.
        """
        return Document.from_json(self.document_json(state))

    def document_json(self, state: int) -> dict[str, Any]:
        """The same as plain data."""
        start, length = self._places[self.state(state).id]
        with (self.folder / HISTORY).open("rb") as file:
            file.seek(start)
            found: dict[str, Any] = json.loads(file.read(length))["document"]
        return found

    def state(self, state: int) -> State:
        """A state by its number.

        Raises:
            Missing: there is none.
        """
        if state not in self.states:
            raise Missing(f"state {state}: this project has no such state")
        return self.states[state]

    def trace(self, state: int) -> Path | None:
        """The trace of a composed state."""
        path = self.folder / TRACES / f"{self.state(state).id}.trace.npz"
        return path if path.is_file() else None

    def new_trace(self, name: str) -> Path:
        """Where a trace may be written before its state exists."""
        return self.folder / TRACES / f".{name}.trace.npz"

    def add(
        self,
        parent: int,
        label: str,
        kind: Kind,
        document: Document,
        *,
        group: int | None = None,
        head: bool = True,
        trace: Path | None = None,
    ) -> State:
        """A new state, the head if so wished; ``trace``: a file that becomes its trace.

        Raises:
            UserError: no such parent, too many states, or a label that is none.
        """
        with self.lock:
            self.state(parent)
            number = max(self.states) + 1
            if number >= MOST_STATES:
                raise UserError(f"this project has {MOST_STATES:,} states, the most there may be; go on in a copy")
            state = State(number, parent, shortened(label), kind, time.time(), group)
            if trace is not None and trace.is_file():
                os.replace(trace, self.folder / TRACES / f"{number}.trace.npz")
            self._write({"state": asdict(state), "head": head, "document": document.to_json()})
            return state

    def edit(self, parent: int, label: str, document: Document) -> State:
        """A state that was made by hand, the head.  A page that missed the answer sends it again: it is there once,
        if no other state has become the head since.

        Raises:
            UserError: as for :meth:`add`.
        """
        with self.lock:
            head, label = self.states[self.head], shortened(label)
            same = (head.parent, head.label, head.kind) == (parent, label, "edit")
            if same and self.document(head.id) == document:
                return head
            return self.add(parent, label, "edit", document)

    def move(self, state: int) -> None:
        """Make a state the head.

        Raises:
            Missing: there is no such state.
        """
        with self.lock:
            if self.state(state).id != self.head:
                self._write({"head": state})

    def _write(self, line: dict[str, Any]) -> None:
        path = self.folder / HISTORY
        with path.open("r+b") as file:
            file.truncate(self._size)  # what was torn goes
            file.seek(self._size)
            length = _append(file, line)
        self._replay(line, (self._size, length))
        self._size += length

    def _replay(self, line: dict[str, Any], place: tuple[int, int]) -> None:
        """Take a line of the history into account."""
        moved = line.get("head")
        if "state" in line:
            state = State.from_json(line["state"], self.states)
            if state.id in self.states or not isinstance(line.get("document"), dict):
                raise UserError(f"{self.folder / HISTORY}: state {state.id} is there twice, or without a document")
            self.states[state.id], self._places[state.id] = state, place
            moved = state.id if moved or len(self.states) == 1 else None
        if moved is not None:
            if moved not in self.states:
                raise UserError(f"{self.folder / HISTORY}: the head moves to a state that does not exist")
            before, now = self.states.get(self.head), self.states[moved]
            if before is not None and before.parent == moved:
                self._latest[moved] = before.id
            if now.parent is not None:
                self._latest[now.parent] = moved
            self.head = moved

    def pack(self, file: BinaryIO) -> None:
        """Write the project file, a zip archive of the folder."""
        with self.lock, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(self.folder / FACTS, FACTS)
            with (self.folder / HISTORY).open("rb") as history:
                archive.writestr(HISTORY, history.read(self._size))
            for state in self.states:
                if (trace := self.trace(state)) is not None:
                    archive.write(trace, f"{TRACES}/{trace.name}", zipfile.ZIP_STORED)


def shortened(label: str) -> str:
    """A label as a state has it."""
    return " ".join(label.split())[: 4 * MOST_TEXT]


def checked_name(name: Any) -> str:
    """A name as a project may have it.

    Raises:
        UserError: it is none.
    """
    text = " ".join(name.split()) if isinstance(name, str) else ""
    if not 0 < len(text) <= MOST_TEXT or not text.isprintable():
        raise UserError(f"name {quoted(name)}: 1 to {MOST_TEXT} characters that can be printed")
    return text


def read_facts(path: Path) -> dict[str, Any]:
    """What ``project.json`` says.

    Raises:
        UserError: it is damaged, or of a newer version.
    """
    try:
        facts = json.loads(path.read_bytes())
        if facts["format"] != FORMAT or type(facts["created"]) not in (int, float):
            raise ValueError("another format")
        name, version = checked_name(facts["name"]), facts["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{FACTS}: damaged ({shown(str(error), 80)})") from error
    if version != VERSION:
        raise UserError(f"{FACTS}: version {shown(version)}, this program reads {VERSION}: update FractalGen")
    return {"format": FORMAT, "version": VERSION, "name": name, "created": facts["created"]}


def _append(file: BinaryIO, line: dict[str, Any]) -> int:
    """Write a line and flush it to the disk; returns its length in bytes."""
    content = json.dumps(line, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    if len(content) > MOST_LINE:
        raise UserError(f"the piece takes {len(content):,} bytes, more than {MOST_LINE:,}")
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
    return len(content)


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], tuple[int, int]]]:
    """The lines of a history, and the first byte and the length of each; a torn last line is left out.

    Raises:
        UserError: another line is damaged.
    """
    place, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while content := file.readline(MOST_LINE + 1):
            try:
                line = json.loads(content) if content.endswith(b"\n") else None
            except (ValueError, RecursionError):
                line = None
            if not isinstance(line, dict):
                if place + len(content) < size or len(content) > MOST_LINE:
                    raise UserError(f"{path.name}: damaged at byte {place:,}")
                return
            yield line, (place, len(content))
            place += len(content)
