"""A studio in a process of its own: killed in the middle, with many pages, and for many jobs."""

from __future__ import annotations

import asyncio
import json
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import websockets

from fractalgen import PianoRoll
from tests.studio.conftest import BAR
from tests.studio.server import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked at through /proc"),
]


@contextmanager
def served(model: str, folder: Path) -> Iterator[Server]:
    server = Server(folder, "--checkpoint", model)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="module")
def server(model_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that is not killed before the end."""
    with served(model_path, tmp_path_factory.mktemp("projects")) as running:
        yield running
        assert running.end(signal.SIGINT) == 0


def gone(pid: int) -> bool:
    """Whether a process has ended (or waits for nothing but to be noticed)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split(") ")[1][0] == "Z"
    except FileNotFoundError:
        return True


def resident(pids: list[int]) -> int:
    """Bytes of memory that processes hold, together."""
    texts = [Path(f"/proc/{pid}/status").read_text(encoding="utf-8") for pid in pids]
    return sum(int(line.split()[1]) << 10 for text in texts for line in text.splitlines() if line.startswith("VmRSS"))


def test_a_killed_server_loses_nothing(model_path: str, tmp_path: Path) -> None:
    with served(model_path, tmp_path) as server:
        project = server.project()
        server.compose(project, flags={"bars": 2})
        server.idle()
        note = [0, 60, 0, 480, 80, 0, 1]
        document = {"length": BAR, "tempos": [[0, 120]], "meters": [[0, 4, 4]], "notes": [note]}
        server.post(f"projects/{project}/states", parent=1, label="draw", document=document)
        before = server.get(f"projects/{project}")
        server.compose(project, flags={"bars": 300})
        server.client.get(f"/api/projects/{project}/states/1/png")  # starts the process that draws
        children = server.children()
        assert len(children) >= 2
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        deadline = time.monotonic() + 20
        while not all(map(gone, children)):
            assert time.monotonic() < deadline, "processes of a killed server go on"
            time.sleep(0.05)
    with served(model_path, tmp_path) as server:
        assert server.get(f"projects/{project}") == before
        server.compose(project, state=2, mode="continue", flags={"bars": 1})
        server.idle()
        after = server.get(f"projects/{project}")
        assert after["document"]["length"] == 2 * BAR
        assert note in after["document"]["notes"]
        assert sorted(path.name for path in (tmp_path / project / "traces").iterdir()) == ["1.trace.npz", "3.trace.npz"]
        asyncio.run(some_bars(server, project, state=2, flags={"bars": 300}))
        assert server.end(signal.SIGTERM, all_processes=True) == 0  # as a manager of services ends it
    history = (tmp_path / project / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(history[-1])["state"]["id"] == 4  # what was composed is kept


async def some_bars(server: Server, project: str, **wish: Any) -> None:
    """Begin a job, and wait until some bars of it are there."""
    async with websockets.connect(f"{server.url.replace('http', 'ws')}api/live?project={project}") as socket:
        await asyncio.to_thread(server.compose, project, **wish)
        patches = 0
        while patches < 40:
            patches += json.loads(await socket.recv())["type"] == "patch"


def test_twenty_pages_get_what_is_theirs(server: Server) -> None:
    async def page(project: str) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        async with websockets.connect(f"{server.url.replace('http', 'ws')}api/live?project={project}") as socket:
            await asyncio.to_thread(server.compose, project, num_samples=2, flags={"bars": 1})
            while not messages or messages[-1]["type"] not in ("done", "error"):
                messages.append(json.loads(await socket.recv()))
        return messages

    async def pages(projects: list[str]) -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*map(page, projects))

    projects = [server.project() for _ in range(20)]
    for messages in asyncio.run(pages(projects)):
        jobs = {message["job"] for message in messages if "job" in message}
        assert len(jobs) == 1
        assert [message["type"] for message in messages].count("patch") == 16
        assert len(messages[-1]["states"]) == 2
        positions = [message["position"] for message in messages if message["type"] == "queued"]
        assert positions == sorted(positions, reverse=True)
    for project in projects:
        assert len(server.get(f"projects/{project}")["states"]) == 3


def test_memory_stays_flat(server: Server) -> None:
    project = server.project()
    pids = [server.process.pid, *server.children()]
    sizes = []
    for number in range(100):
        server.compose(project, flags={"bars": 1, "seed": number}, num_samples=1 + number % 2)
        server.idle()
        server.client.get(f"/api/projects/{project}/states/{number + 1}")
        server.client.put(f"/api/projects/{project}/head", json={"state": number})
        sizes.append(resident(pids))
    assert sizes[-1] < 1.05 * sizes[29], sizes


def test_reaper_gets_a_piece(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, ...]] = []
    fake = ModuleType("reaper_python")
    inputs = ["2,,", "2,H moll,"]
    calls = {
        "RPR_GetUserInputs": lambda *asked: (True, *asked[:3], inputs.pop(0), asked[4]),
        "RPR_InsertMedia": lambda path, mode: shown.append(("insert", path)),
        "RPR_Master_GetTempo": lambda: 96.0,
        "RPR_ShowMessageBox": lambda text, title, kind: shown.append(("say", text)),
    }
    for name, function in calls.items():
        setattr(fake, name, function)
    monkeypatch.setitem(sys.modules, "reaper_python", fake)
    script = Path(__file__).parents[2] / "scripts" / "reaper_compose.py"
    monkeypatch.setenv("FRACTALGEN_STUDIO", server.url.rstrip("/"))
    runpy.run_path(str(script))
    runpy.run_path(str(script))
    roll = PianoRoll.from_midi(shown[0][1])
    assert (roll.width, round(roll.tempos[0][1])) == (32, 96)
    assert shown[1][0] == "say"
    assert "--key H moll" in shown[1][1]  # what the command line says
