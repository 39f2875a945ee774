"""Projects on disk: the tree of states, torn lines, and project files of strangers."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fractalgen.errors import UserError
from fractalgen.studio.document import Document
from fractalgen.studio.project import FACTS, HISTORY, Missing, Project
from fractalgen.studio.projects import Projects
from tests import tiny


@pytest.fixture
def projects(tmp_path: Path) -> Iterator[Projects]:
    found = Projects(str(tmp_path / "projects"))
    yield found
    found.close()


def again(project: Project) -> Project:
    """The same project as the next server reads it."""
    return Project(project.folder)


def seen(project: Project) -> tuple[object, ...]:
    return project.name, dict(project.states), project.head, project.redo, project.document(project.head)


def test_states_are_a_tree_and_the_head_moves_in_it(projects: Projects, piece: Document) -> None:
    project = projects.create("  A  waltz ")
    assert (project.name, project.head, project.document(0)) == ("A waltz", 0, Document(0))
    one = project.add(0, "draw", "edit", piece)
    two = project.add(one.id, "move", "edit", Document(960))
    project.move(one.id)
    project.move(0)
    assert project.redo == one.id
    project.move(one.id)
    assert project.redo == two.id
    other = project.add(0, "compose", "alternative", Document(480), group=7, head=False)
    assert project.head == one.id
    assert other.parent == 0
    project.move(other.id)
    project.move(0)
    assert project.redo == other.id
    assert seen(again(project)) == seen(project)
    assert again(project).document(one.id) == piece
    with pytest.raises(Missing):
        project.move(9)
    with pytest.raises(Missing):
        project.add(9, "x", "edit", piece)


def test_an_edit_that_is_sent_again_is_there_once(projects: Projects, piece: Document) -> None:
    project = projects.create("a")
    one = project.edit(0, "draw", piece)
    assert project.edit(0, "  draw ", piece) == one
    assert again(project).edit(0, "draw", piece) == one
    others = project.edit(0, "draw", Document(480)), project.edit(one.id, "draw", piece), project.edit(0, "draw", piece)
    assert [state.id for state in others] == [2, 3, 4]
    project.move(0)
    assert project.edit(0, "draw", piece).id == 5  # drawn again after an undo


@pytest.mark.parametrize("torn", [1, 20, 200])
def test_a_torn_last_line_is_not_there_and_the_history_goes_on(projects: Projects, piece: Document, torn: int) -> None:
    project = projects.create("a")
    project.add(0, "one", "edit", piece)
    before = seen(project)
    project.add(1, "two", "edit", Document(1))
    history = project.folder / HISTORY
    content = history.read_bytes()
    history.write_bytes(content[:-torn])
    found = again(project)
    assert seen(found) == before
    found.add(1, "three", "edit", Document(2))
    assert [state.label for state in again(found).states.values()] == ["new", "one", "three"]


def test_damage_before_the_end_is_told(projects: Projects) -> None:
    project = projects.create("a")
    project.add(0, "one", "edit", Document(1))
    history = project.folder / HISTORY
    history.write_bytes(b"#" + history.read_bytes()[1:])
    with pytest.raises(UserError, match="damaged at byte 0"):
        again(project)
    projects.create("b")
    projects.close()
    later = Projects(str(projects.folder))
    assert [found.name for found in later.all()] == ["b"]
    later.close()


def test_a_folder_has_one_studio(projects: Projects) -> None:
    with pytest.raises(UserError, match="another studio uses this folder"):
        Projects(str(projects.folder))


def test_names_and_numbers_are_no_paths(projects: Projects) -> None:
    for number in ("", "..", "../projects", "0" * 11, "0" * 12, "/etc", "A" * 12):
        with pytest.raises(Missing):
            projects.get(number)
    for name in ("", " ", "a\0b", "x" * 61, "a\x1bb"):
        with pytest.raises(UserError, match="name"):
            projects.create(name)


def test_project_files_hold_everything(projects: Projects, piece: Document, tmp_path: Path) -> None:
    project = projects.create("Träume")
    trace = project.new_trace("1-0")
    tiny.intermediates(tiny.tokens(0)[None]).traces[0].save(trace)
    project.add(0, "compose", "compose", piece, trace=trace)
    packed = io.BytesIO()
    project.pack(packed)
    found = projects.unpack(packed)
    assert found.id != project.id
    assert seen(found) == seen(project)
    path = found.trace(1)
    assert path is not None
    assert path.read_bytes() == (project.folder / "traces" / "1.trace.npz").read_bytes()
    projects.delete(project.id)
    assert [left.id for left in projects.all()] == [found.id]
    assert sorted(entry.name for entry in projects.folder.iterdir()) == [".lock", found.id]


def parts() -> dict[str, bytes]:
    """The files of a good project file."""
    state = {"id": 0, "parent": None, "label": "new", "kind": "new", "time": 1.0, "group": None}
    line = {"state": state, "head": True, "document": Document(480).to_json()}
    facts = {"format": "fractalgen.project", "version": 1, "name": "a", "created": 1.0}
    return {FACTS: json.dumps(facts).encode(), HISTORY: json.dumps(line).encode() + b"\n"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"../evil": b""}, "other files are in it"),
        ({"traces/../../evil.trace.npz": b""}, "other files are in it"),
        ({"/etc/passwd": b""}, "other files are in it"),
        ({FACTS: None}, "other files are in it"),
        ({FACTS: b"{}"}, "project.json: damaged"),
        ({FACTS: b"[" * 100_000}, "project.json: damaged"),
        ({FACTS: parts()[FACTS].replace(b'"version": 1', b'"version": 2')}, "version 2, this program reads 1"),
        ({FACTS: parts()[FACTS].replace(b'"name": "a"', b'"name": "a\\u0000"')}, "name"),
        ({HISTORY: b""}, "without a state"),
        ({HISTORY: b"{}\n[]\n{}\n"}, "damaged at byte 3"),
        ({HISTORY: parts()[HISTORY] * 2}, "is there twice"),
        ({HISTORY: parts()[HISTORY] + b'{"head": 5}\n'}, "a state that does not exist"),
        ({HISTORY: parts()[HISTORY].replace(b"480", b"-1")}, "document: length"),
        ({HISTORY: parts()[HISTORY].replace(b'"kind": "new"', b'"kind": 3')}, "history: no state"),
        ({"traces/0.trace.npz": b"PK"}, "trace"),
        ({"traces/4.trace.npz": b""}, "traces/4.trace.npz belongs to no state"),
    ],
)
def test_hostile_project_files_are_refused_and_leave_nothing(
    projects: Projects, changes: dict[str, bytes | None], message: str
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in (parts() | changes).items():
            if content is not None:
                archive.writestr(name, content)
    with pytest.raises(UserError) as caught:
        projects.unpack(packed)
    assert message in str(caught.value)
    assert [entry.name for entry in projects.folder.iterdir()] == [".lock"]


def test_files_that_are_no_archives_or_swell_are_refused(projects: Projects, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"", b"PK\x03\x04", b"x" * 1000):
        with pytest.raises(UserError, match="not a project file"):
            projects.unpack(io.BytesIO(content))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts().items():
            archive.writestr(name, content)
    damaged = bytearray(packed.getvalue())
    damaged[60] ^= 0xFF
    with pytest.raises(UserError):
        projects.unpack(io.BytesIO(bytes(damaged)))
    monkeypatch.setattr("fractalgen.studio.projects.MOST_UNPACKED", 100)
    with pytest.raises(UserError, match="bytes of history"):
        projects.unpack(packed)
