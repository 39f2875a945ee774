"""The HTTP interface with a real worker: pieces, files, mistakes in one line, and a worker that dies."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin

import pytest
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from fractalgen import PianoRoll, Trace
from fractalgen.files import ASSETS
from fractalgen.studio.document import Document
from fractalgen.studio.exports import KINDS
from fractalgen.studio.service import Studio
from tests.studio.conftest import BAR

NO_KIND = f"exe: not a kind of file; there are {', '.join(KINDS)}"


def new_project(client: TestClient, document: Document | None = None) -> str:
    """A project, whose state 1 is the document."""
    project = str(client.post("/api/projects", json={"name": "Träume / 1"}).json()["id"])
    if document is not None:
        body = {"parent": 0, "label": "draw", "document": document.to_json()}
        assert client.post(f"/api/projects/{project}/states", json=body).status_code == 200
    return project


def listen(client: TestClient, project: str) -> WebSocketTestSession:
    return client.websocket_connect(f"ws://localhost/api/live?project={project}")


def until(socket: WebSocketTestSession, job: int, *kinds: str) -> list[dict[str, Any]]:
    """Messages up to one of these kinds about the job."""
    messages: list[dict[str, Any]] = []
    while not messages or messages[-1]["type"] not in kinds or messages[-1].get("job") != job:
        messages.append(json.loads(socket.receive_text()))
    return messages


def compose(client: TestClient, socket: WebSocketTestSession, project: str, **wish: Any) -> list[dict[str, Any]]:
    answer = client.post(f"/api/projects/{project}/compose", json=wish)
    assert answer.status_code == 200, answer.text
    return until(socket, answer.json()["job"], "done", "error")


def test_a_piece_from_nothing_to_a_file(client: TestClient) -> None:
    project = new_project(client)
    with listen(client, project) as socket:
        told = compose(client, socket, project, state=0, mode="new", flags={"bars": 2, "seed": 3, "tempo": 100})
    kinds = [message["type"] for message in told]
    assert kinds == ["started", *["patch"] * 16, "state", "done"]
    (state,) = told[-1]["states"]
    found = client.get(f"/api/projects/{project}").json()
    assert (found["head"], found["document"]["length"]) == (state, 2 * BAR)
    one = client.get(f"/api/projects/{project}/states/{state}").json()
    assert one["document"] == found["document"]
    assert one["trace"] is True
    (listed,) = [entry for entry in client.get("/api/projects").json() if entry["id"] == project]
    assert (listed["bars"], listed["notes"]) == (2, len(found["document"]["notes"]))
    answer = client.get(f"/api/projects/{project}/states/{state}/mid")
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''Tr%C3%A4ume%20_%201.mid"


def test_files_to_take_away_and_bring_back(client: TestClient, piece: Document, tmp_path: Any) -> None:
    project = new_project(client, piece)
    states = f"/api/projects/{project}/states/1"
    (tmp_path / "a.mid").write_bytes(client.get(f"{states}/mid").content)
    assert PianoRoll.from_midi(tmp_path / "a.mid").width == 64
    (tmp_path / "b.mid").write_bytes(client.get(f"{states}/mid?bars=2-3").content)
    assert PianoRoll.from_midi(tmp_path / "b.mid").width == 32
    assert client.get(f"{states}/mid?bars=9").json() == {"detail": "bars 9: the piece has the bars 1-4"}
    assert client.get(f"{states}/trace").status_code == 400
    upload = {"file": ("../../evil\n.mid", client.get(f"{states}/mid").content)}
    brought = client.post(f"/api/projects/{project}/import", files=upload).json()
    assert brought["state"]["kind"] == "import"
    assert "/" not in brought["state"]["label"]
    document = client.get(f"/api/projects/{project}").json()["document"]
    assert [note[1:6] for note in document["notes"]] == [list(note[1:6]) for note in piece.notes]
    chords = client.post(f"/api/projects/{project}/import", files={"file": ("c.txt", b"C | F G")}).json()
    lane = client.get(f"/api/projects/{project}/states/{chords['state']['id']}").json()["document"]["chords"]
    assert lane[:3] == [[0, "C"], [BAR, "F"], [BAR + 960, "G"]]
    packed = client.get(f"/api/projects/{project}/file").content
    again = client.post("/api/projects/open", files={"file": ("x.fractalgen", io.BytesIO(packed))}).json()
    assert again["states"] == client.get(f"/api/projects/{project}").json()["states"]


def test_a_picture_and_a_page_of_a_piece_in_another_meter(client: TestClient, piece: Document) -> None:
    project = new_project(client, replace(piece, meters=((0, 3, 4), (3 * 480, 7, 8))))
    answer = client.get(f"/api/projects/{project}/states/1/png")
    assert answer.status_code == 200, answer.text
    assert answer.content.startswith(b"\x89PNG")
    page = client.get(f"/api/projects/{project}/states/1/html").text
    assert all(f'"{name}"' in page for _, name in piece.chords)


@pytest.mark.slow
def test_pictures_sound_and_pages(client: TestClient, piece: Document, tmp_path: Any) -> None:
    project = new_project(client, piece)
    with listen(client, project) as socket:
        told = compose(client, socket, project, state=1, mode="continue", flags={"bars": 2, "seed": 3})
    (state,) = told[-1]["states"]
    for one, query in ((1, {}), (state, {}), (state, {"bars": "1-2"})):
        kinds = {"png": b"\x89PNG", "gif": b"GIF89a", "wav": b"RIFF", "mp4": b"", "html": b"<!", "musicxml": b"<?xml"}
        for kind, head in kinds.items():
            answer = client.get(f"/api/projects/{project}/states/{one}/{kind}", params=query)
            assert answer.status_code == 200, answer.text
            assert answer.content.startswith(head)
            assert "attachment" in answer.headers["content-disposition"]
    (tmp_path / "a.trace.npz").write_bytes(client.get(f"/api/projects/{project}/states/{state}/trace").content)
    assert Trace.load(tmp_path / "a.trace.npz").roll.width == 96
    score = client.get(f"/api/projects/{project}/states/1/musicxml").content
    brought = client.post(f"/api/projects/{project}/import", files={"file": ("a.musicxml", score)})
    assert brought.status_code == 200, brought.text
    notes = client.get(f"/api/projects/{project}").json()["document"]["notes"]
    assert sorted(note[1] for note in notes) == sorted(note.pitch for note in piece.notes)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("get", "/api/projects/nothing", None, 404, "no such project"),
        ("get", "/api/projects/../../etc", None, 404, None),
        ("get", "/api/projects/PROJECT/states/9", None, 404, "state 9: this project has no such state"),
        ("get", "/api/projects/PROJECT/states/1/exe", None, 400, NO_KIND),
        ("get", "/static/studio/../../config/train.py", None, 404, None),
        ("get", "/static/studio/%2e%2e/%2e%2e/config/train.py", None, 404, None),
        ("post", "/api/projects", {"name": ""}, 400, None),
        ("post", "/api/projects", {"name": 3}, 400, "body.name: Input should be a valid string"),
        ("post", "/api/projects", [], 400, None),
        ("put", "/api/projects/PROJECT/head", {"state": 7}, 404, None),
        ("put", "/api/projects/PROJECT/head", {"state": "1"}, 400, None),
        ("post", "/api/projects/PROJECT/states", {"parent": 0, "label": "x", "document": {}}, 400, None),
        ("post", "/api/projects/PROJECT/compose", {"state": 0, "mode": "dance"}, 400, None),
        ("post", "/api/projects/PROJECT/compose", {"state": 9, "mode": "new"}, 404, None),
        (
            "post",
            "/api/projects/PROJECT/compose",
            {"state": 0, "mode": "new", "flags": {"input_midi": "/etc/passwd"}},
            400,
            "--input_midi: not a flag that the studio takes",
        ),
        ("delete", "/api/jobs/99999", None, 404, "job 99999: there is no such job, or it has ended"),
    ],
)
def test_mistakes_get_one_line(
    client: TestClient, piece: Document, method: str, path: str, body: Any, status: int, detail: str | None
) -> None:
    project = new_project(client, piece)
    before = client.get(f"/api/projects/{project}").json()
    answer = client.request(method, path.replace("PROJECT", project), json=body)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["detail"]
    if detail is not None:
        assert answer.json() == {"detail": detail}
    assert client.get(f"/api/projects/{project}").json() == before


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b"%PDF-1.7\n\xe2", b"ID3\x03"])
def test_files_of_other_kinds_are_told_what_is_wanted(client: TestClient, content: bytes) -> None:
    answer = client.post(f"/api/projects/{new_project(client)}/import", files={"file": ("a.bin", content)})
    assert answer.status_code == 400
    assert answer.json() == {"detail": "a.bin: no MIDI or MusicXML file, and no text of chords"}


@pytest.mark.parametrize(
    "content", [b"", b"MThd", b"RIFF" * 9, b"PK\x03\x04", b"\x1f\x8b\x08", b"<x>", b"\xff\xfe", b"\0" * 99]
)
def test_hostile_files_get_one_line(client: TestClient, content: bytes) -> None:
    project = new_project(client)
    for name in ("a.mid", "a.musicxml", "a.txt", "a.fractalgen", "..", "/"):
        answer = client.post(f"/api/projects/{project}/import", files={"file": (name, content)})
        assert answer.status_code == 400, (name, answer.text)
        assert "\n" not in answer.json()["detail"]
        assert "/tmp" not in answer.json()["detail"]
    assert client.post("/api/projects/open", files={"file": ("x", content)}).status_code == 400
    assert len(client.get(f"/api/projects/{project}").json()["states"]) == 1


def test_wrong_flags_get_the_line_of_the_command_line_at_once(client: TestClient) -> None:
    project = new_project(client)
    mistakes = {
        "--key C major: this model knows no key (it was trained without --attributes)": {"key": "C major"},
        "--model x: no such model (shipped: ": {"model": "x"},
        "--tempo: expected number or none, not 'fast'": {"tempo": "fast"},
    }
    with listen(client, project) as socket:
        wish = {"state": 0, "mode": "new", "flags": {"bars": 300}}
        job = client.post(f"/api/projects/{project}/compose", json=wish).json()["job"]
        until(socket, job, "patch")
        for message, flags in mistakes.items():  # at once, also while something else is composed
            answer = client.post(f"/api/projects/{project}/compose", json={**wish, "flags": flags})
            assert answer.status_code == 400
            assert answer.json()["detail"].startswith(message)
            assert "\n" not in answer.text
        assert [entry["job"] for entry in client.get("/api/jobs").json()] == [job]
        client.delete(f"/api/jobs/{job}?keep=false")
        until(socket, job, "done")


def test_stopping_keeps_what_is_there_and_late_pages_see_it_all(client: TestClient) -> None:
    project = new_project(client)
    with listen(client, project) as socket:
        job = client.post(f"/api/projects/{project}/compose", json={"state": 0, "mode": "new", "flags": {"bars": 300}})
        number = job.json()["job"]
        first = until(socket, number, "patch")
        with listen(client, project) as late:
            assert until(late, number, "patch")[: len(first)] == first
            waiting = client.post(f"/api/projects/{project}/compose", json={"state": 0, "mode": "new"}).json()
            assert waiting["position"] == 1
            assert [entry["job"] for entry in client.get("/api/jobs").json()] == [number, waiting["job"]]
            assert client.delete(f"/api/jobs/{waiting['job']}").status_code == 200
            assert client.delete(f"/api/jobs/{number}").status_code == 200
            done = until(socket, number, "done")[-1]
            assert until(late, number, "done")[-1] == done
    assert done["stopped"] is True
    (state,) = done["states"]
    found = client.get(f"/api/projects/{project}/states/{state}").json()
    assert found["state"]["label"] == "new piece (stopped)"
    assert found["document"]["length"] == 300 * BAR
    assert not found["trace"]


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again(running: tuple[TestClient, Studio]) -> None:
    client, studio = running
    project = new_project(client)
    with listen(client, project) as socket:
        job = client.post(f"/api/projects/{project}/compose", json={"state": 0, "mode": "new", "flags": {"bars": 300}})
        until(socket, job.json()["job"], "patch")
        assert studio.queue.worker is not None
        assert studio.queue.worker.pid is not None
        os.kill(studio.queue.worker.pid, signal.SIGKILL)
        error = until(socket, job.json()["job"], "error")[-1]
        assert "the process of the model has died" in error["message"]
        told = compose(client, socket, project, state=0, mode="new", flags={"bars": 1})
    assert told[-1]["type"] == "done"
    assert len(told[-1]["states"]) == 1


def test_pages_hear_of_changes_by_others(client: TestClient, piece: Document) -> None:
    project = new_project(client, piece)
    with listen(client, project) as socket:
        client.put(f"/api/projects/{project}/head", json={"state": 0})
        told = json.loads(socket.receive_text())
        assert (told["type"], told["state"]["id"], told["head"], told["redo"]) == ("state", 0, 0, 1)
        body = {"parent": 0, "label": "x", "document": piece.to_json()}
        client.post(f"/api/projects/{project}/states", json=body)
        told = json.loads(socket.receive_text())
        assert (told["state"]["id"], told["head"], told["redo"]) == (2, 2, None)
        other = new_project(client)
        client.patch(f"/api/projects/{other}", json={"name": "B"})
        client.delete(f"/api/projects/{other}")
        told = [json.loads(socket.receive_text()) for _ in range(3)]
        assert told == [{"type": "project", "project": other, "name": name} for name in ("Träume / 1", "B", None)]
    with listen(client, other) as socket, pytest.raises(WebSocketDisconnect) as caught:
        socket.receive_text()
    assert (caught.value.code, caught.value.reason) == (4404, "no such project")


def test_the_interface_describes_itself(client: TestClient) -> None:
    described = client.get("/api/openapi.json").json()
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    assert all(operation["description"] for operation in operations)
    info = client.get("/api/info").json()
    assert [model["name"] for model in info["models"] if model["default"]] == ["tiny"]
    assert {"pop909-ar", "chorales"} < {model["name"] for model in info["models"]}
    assert info["limits"]["upload_bytes"] == 8 << 20
    assert client.get("/docs").status_code == 404
    assert client.get("/api/health").json()["ready"] is True


def test_the_page_and_its_files_are_served(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/static/piano/samples.json").status_code == 200


def test_every_script_is_served_and_imports_go_one_way(client: TestClient) -> None:
    served = set()

    def follow(path: str, *importers: str) -> None:
        assert path not in importers, f"a circle of imports: {' '.join(importers)} {path}"
        if path in served:
            return
        served.add(path)
        answer = client.get(path)
        assert answer.headers["content-type"].startswith("text/javascript"), path
        for name in re.findall(r'^import [^;]* from "(.+)";$', answer.text, re.MULTILINE):
            follow(urljoin(path, name), *importers, path)

    follow("/static/studio/app.js")
    assert served >= {f"/static/studio/{path.name}" for path in (ASSETS / "studio").glob("*.js")}


def test_a_folder_that_is_full_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    project = new_project(client)

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fractalgen.studio.project._append", full)
    body = {"parent": 0, "label": "x", "document": Document(480).to_json()}
    answer = client.post(f"/api/projects/{project}/states", json=body)
    assert (answer.status_code, answer.json()) == (500, {"detail": "the disk: No space left on device"})
    monkeypatch.undo()
    began = time.monotonic()
    assert client.post(f"/api/projects/{project}/states", json=body).json()["state"]["id"] == 1
    assert time.monotonic() - began < 5
